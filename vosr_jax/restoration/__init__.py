"""From a picture on disk to a restored one."""
