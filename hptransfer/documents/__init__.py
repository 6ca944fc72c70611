"""The JSON that commands write and print: its shapes, which also make the published schemas."""
