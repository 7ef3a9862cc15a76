"""What the product does with photographs: a real teacher, a detector trained on COCO, personal objects."""
