"""The LightningModules of the methods, one file a family."""
