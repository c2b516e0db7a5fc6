"""The main job on embedded defaults: a real worker, a broker in files, a receiver of OTLP."""
