package main

// colored says whether to use colours: https://no-color.org. A terminal that
// does not say what it is gets none.
func colored(terminal bool, getenv func(string) string) bool {
	term := getenv("TERM")
	return terminal && getenv("NO_COLOR") == "" && term != "" && term != "dumb"
}
