"""What a setting may say: values parsed once, units in hand. :mod:`fastload.options` knows which settings there are."""
