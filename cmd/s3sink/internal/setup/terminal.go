package setup

// useColor reports whether to print colors: only to a terminal whose type is
// known, and only if NO_COLOR (https://no-color.org) is not set.
func useColor(terminal bool, getenv func(string) string) bool {
	term := getenv("TERM")
	return terminal && getenv("NO_COLOR") == "" && term != "" && term != "dumb"
}
