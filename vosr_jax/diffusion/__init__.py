"""The method: conditions, guidance, objectives and samplers."""
