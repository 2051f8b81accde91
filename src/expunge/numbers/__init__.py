"""The mathematics that several metrics share: arrays and tables in, numbers out, no model."""
