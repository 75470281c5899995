"""From records to statistics, tables, figures and one page; see `build` for the story, `command` for the command."""
