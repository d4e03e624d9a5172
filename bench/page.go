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

// table is one Markdown table of results, with a row for each alternative.
type table struct {
	head  []string
	rows  [][]string
	notes []string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// objectBytesRatio is the column that compares the size of the objects with the
// size that the same events have in memory mode.
const objectBytesRatio = "object bytes ÷ memory mode"

// legend explains the columns that several tables have. Each output ends with
// it; docs/performance.md holds it once.
const legend = `*peak RSS* is the peak resident memory of the child process, as counted by the kernel. *above idle*
is that peak minus the resident memory of the same child with an idle sink.
`

// section returns the Markdown of one measurement: the command that repeats it,
// the machine that it ran on, and its tables.
func section(measurement string, f *flag.FlagSet, machine string, tables []table) string {
	var b strings.Builder
	fmt.Fprintf(&b, "`%s`: %s\n", command(measurement, f), machine)
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

// command returns the command line of a measurement, without flags that hold
// paths.
func command(measurement string, f *flag.FlagSet) string {
	words := []string{"go run .", measurement}
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

// environment describes the machine, its load, the file system of dir and the
// date.
func environment(dir string) string {
	name, _ := fileSystem(dir)
	return fmt.Sprintf("%s, %d cores, load average %s before the run, %s, %s, %s, %s.",
		processor(), runtime.GOMAXPROCS(0), load(), kernel(), runtime.Version(), name, time.Now().UTC().Format(time.DateOnly))
}

// updatePage replaces the section of one measurement in a Markdown file. Two
// comments with the name of the measurement mark its begin and end.
func updatePage(file, measurement, text string) error {
	page, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	begin, end := "<!-- bench "+measurement+" -->\n", "<!-- end of bench "+measurement+" -->\n"
	before, rest, hasBegin := strings.Cut(string(page), begin)
	_, after, hasEnd := strings.Cut(rest, end)
	if !hasBegin || !hasEnd {
		return fmt.Errorf("%s has no section for %s: want the lines %s%s", file, measurement, begin, end)
	}
	return os.WriteFile(file, []byte(before+begin+text+end+after), 0o644)
}

func median[N cmp.Ordered](all []N) N {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}

// number formats v with three significant digits, or more if v is above 1000.
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

func megabytes[N int64 | float64](n N) string { return number(float64(n) / 1e6) }
func millis(s float64) string                 { return number(s * 1e3) }
func seconds(s float64) string                { return number(s) }
func ratio(r float64) string                  { return fmt.Sprintf("%.2f", r) }
