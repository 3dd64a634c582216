"""Where does a snapshot live?

Names become candidates (``ref``), and these are looked for on tiers in order (``tiered``): below roots, which are
folders (``root``), or on the hub (``hub/``). What a tier has it gives as an offer (``offer``), which is brought in and
published (``admit/``), by one of many at a time (``lease/``), and kept while there is room (``keep/``).
"""
