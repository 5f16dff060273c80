"""Events as JSON text: an array or lines split into events without making them, and attributes checked."""
