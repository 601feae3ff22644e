from fedmem.studies.experiment_figure import TableFigure
FIGURE = TableFigure(name="adapters", tables=("results",), draw=lambda t: None)
