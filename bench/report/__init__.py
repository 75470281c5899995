"""From records to statistics, tables, figures and one page; `build` has the story."""
