"""The settings of a run: schema, composition by Hydra, errors that name the nearest right thing."""
