"""What every stage needs: its folder with a completion marker, its inputs, and the data that it starts from."""
