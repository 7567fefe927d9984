"""From a label map to polygons, and their scores."""
