"""How fast is this volume, and who loads fastest from it?

Contestants (``contestants``, ``peers``, ``bounds``) take turns (``turns``), each time in a process of its own
(``measure``), the page cache being in a state that is proven (``page_cache``). Their samples become tables and a chart
(``tables``, ``chart``: pure).
"""
