package main

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// table is what a measurement prints: one row for each thing that it has
// measured.
type table struct {
	head  []string
	rows  [][]string
	notes []string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// legend says of every output what the page says once.
const legend = `*peak RSS* is the most that a child had resident, by the kernel's count; *above idle* is that, less what the same child
had resident with a sink that had nothing to do.
`

// section is the tables of a measurement, under the command that brings them
// back and where it ran.
func section(what string, f *flag.FlagSet, place string, tables []table) string {
	var b strings.Builder
	fmt.Fprintf(&b, "`%s`: %s\n", command(what, f), place)
	for _, t := range tables {
		fmt.Fprintf(&b, "\n| %s |\n|%s\n", strings.Join(t.head, " | "), strings.Repeat("---|", len(t.head)))
		for _, row := range t.rows {
			fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
		}
		for _, note := range t.notes {
			fmt.Fprintf(&b, "\n%s\n", note)
		}
	}
	return b.String()
}

// command is what was called, less where files are.
func command(what string, f *flag.FlagSet) string {
	words := []string{"go run .", what}
	f.Visit(func(set *flag.Flag) {
		switch value := set.Value.String(); {
		case slices.Contains([]string{"dir", "update", "heap"}, set.Name):
		case value == "true" || value == "false":
			words = append(words, "-"+set.Name+"="+value)
		default:
			words = append(words, "-"+set.Name, value)
		}
	})
	return strings.Join(words, " ")
}

// placeOf says where and when something is about to be measured, and what else the machine
// has to do.
func placeOf(dir string) string {
	name, _ := fileSystem(dir)
	return fmt.Sprintf("%s, %d cores with a load of %s before it began, %s, %s, %s, %s.",
		processor(), runtime.GOMAXPROCS(0), load(), kernel(), runtime.Version(), name, time.Now().UTC().Format(time.DateOnly))
}

// update writes a section into a page, between two comments that name what was
// measured.
func update(file, what, text string) error {
	page, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	open, shut := "<!-- bench "+what+" -->\n", "<!-- end of bench "+what+" -->\n"
	before, rest, ok := strings.Cut(string(page), open)
	_, after, ok2 := strings.Cut(rest, shut)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no place for %s: want the lines %s%s", file, what, open, shut)
	}
	return os.WriteFile(file, []byte(before+open+text+shut+after), 0o644)
}

func median[N cmp.Ordered](all []N) N {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}

// number is a figure with three digits that count.
func number(v float64) string {
	switch {
	case v >= 100 || v <= -100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10 || v <= -10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

func mega[N int64 | float64](n N) string { return number(float64(n) / 1e6) }
func millis(s float64) string            { return number(s * 1e3) }
func seconds(s float64) string           { return number(s) }
func ratio(r float64) string             { return fmt.Sprintf("%.2f", r) }
