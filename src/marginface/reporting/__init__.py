"""HTML pages, SVG charts and PNG figures."""
