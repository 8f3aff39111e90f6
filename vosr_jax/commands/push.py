"""`vosr push`: upload an export with its card to the hub."""

import argparse

from vosr_jax.commands import card


def add_parser(commands) -> None:
    """Describe the command to argparse's subparsers."""
    push = commands.add_parser(
        "push",
        help="publish an export on the Hugging Face hub",
        description="Write an export's model card and upload both, in one commit. Checksums lie "
        "in manifest.json. Log in before with `hf auth login`, or set HF_TOKEN.",
    )
    card.add_options(push, "the repository's name")
    push.add_argument("repo", metavar="OWNER/NAME", help="on the hub; made where there is none")
    push.add_argument("--private", action="store_true", help="of a repository that is made")
    push.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the card and upload."""
    # Loads JAX.
    from vosr_jax.weights.publish import push, require_publishable

    # Check first: writing the new card would overwrite the old one in vain.
    require_publishable(options.repo)
    card.make(options, options.name or options.repo.partition("/")[2], options.repo)
    print(f"published: {push(options.folder, options.repo, private=options.private)}")
    print(f"use it: vosr upscale photo.jpg -o out/ -m {options.repo}")
    return 0
