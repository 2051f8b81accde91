"""Work on many models: the embedded testbed, benchmarks side by side, studies."""
