"""What people read: the HTML page, plots and terminal tables. Figures are computed elsewhere."""
