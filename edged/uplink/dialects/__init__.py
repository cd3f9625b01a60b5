"""What the messages of other platforms look like: pure encoders and decoders, one module for each platform."""
