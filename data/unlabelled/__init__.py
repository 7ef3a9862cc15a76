"""Pictures that nobody labelled become a data set of regions in YOLO layout.

`pictures.py` finds them and tells them apart by their content, `crops.py` draws boxes that need no detector, and
`writing.py` writes what every reader reads. A picture's name and boxes follow from its content alone, so that its
region keys stay whatever other pictures lie beside it.
"""
