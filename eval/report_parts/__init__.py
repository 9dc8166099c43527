"""Parts of a report page, from the records of one run or several to markup; no file is read or written here."""
