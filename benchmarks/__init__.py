"""Side-by-side timings of tfcourse and of what people would pick instead."""
