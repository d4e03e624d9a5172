package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if name := os.Getenv(childVariable); name != "" {
		os.Exit(child(name))
	}
	os.Exit(m.Run())
}

// Given each measurement at a small size with -unpack, when it runs, then every
// child accounts for all events, the store received each line exactly once, and
// the spool is empty. The figures need only be plausible.
func TestMeasurements_SmallSize(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, args string
		rows       []int             // of each table
		want       map[string]string // cells that every row of the first table has
	}{
		{"recover", "-size 4MiB -sources 4", []int{2}, nil},
		{"backlog", "-size 4MiB -segments 40 -sources 4 -unpack", []int{2, 1}, nil},
		{"backlog", "-size 4MiB -segments 40 -sources 4 -unpack -sealed events", []int{2, 1}, nil},
		{"sources", "-n 100 -for 2s -unpack", []int{2}, map[string]string{"events": "200"}},
		{"spool", "-raw 4MB -unpack", []int{2}, nil},
		{"sync", "-for 200ms -unpack", []int{3}, nil},
		{"synceach", "-for 200ms -unpack", []int{3}, nil},
		{"synceach", "-for 200ms -unpack -busy 1", []int{3}, nil},
	} {
		t.Run(tt.name+" "+tt.args, func(t *testing.T) {
			tables := measureHere(t, tt.name, strings.Fields(tt.args))
			if len(tables) != len(tt.rows) {
				t.Fatalf("%d tables, want %d", len(tables), len(tt.rows))
			}
			for i, table := range tables {
				if len(table.rows) != tt.rows[i] {
					t.Errorf("table %d has %d rows, want %d", i, len(table.rows), tt.rows[i])
				}
				for _, row := range table.rows {
					checkRow(t, table.head, row, tt.want)
				}
			}
		})
	}
}

// timeout limits one measurement in a test. A child alone would wait for an
// hour.
const timeout = 2 * time.Minute

// measureHere runs one measurement and returns its tables.
func measureHere(t *testing.T, name string, args []string) []table {
	for _, m := range measurements {
		if m.name != name {
			continue
		}
		f := newFlags(name, 1, t.Output())
		do := m.prepare(f)
		if err := f.Parse(args); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		defer cancel()
		tables, err := do(ctx, &bench{dir: t.TempDir(), rounds: 1, log: t.Output()})
		if err != nil {
			t.Fatal(err)
		}
		return tables
	}
	t.Fatalf("there is no measurement %s", name)
	return nil
}

// checkRow checks that each cell is a number, and compares the cells in want.
func checkRow(t *testing.T, head, row []string, want map[string]string) {
	t.Helper()
	if len(row) != len(head) {
		t.Fatalf("%d cells for %d columns: %q", len(row), len(head), row)
	}
	cell := map[string]float64{}
	for i, name := range head {
		v, err := strconv.ParseFloat(row[i], 64)
		if name == "" || name == "durability" {
			continue
		}
		if err != nil || v < 0 {
			t.Errorf("%s: %q, want a number that is not negative", name, row[i])
		}
		if w, ok := want[name]; ok && row[i] != w {
			t.Errorf("%s: %s, want %s", name, row[i], w)
		}
		cell[name] = v
	}
	for _, name := range []string{"events", "events/s", "objects", "sealed objects", "commits", "recovered s", "objects/s", "written MB", "open files"} {
		if v, ok := cell[name]; ok && v == 0 {
			t.Errorf("%s: 0 in %q", name, row)
		}
	}
	if v, ok := cell[objectBytesRatio]; ok && (v < 0.8 || v > 1.25) { // a few events vary
		t.Errorf("the objects have %.3f times the bytes of memory mode, want 0.8 to 1.25", v)
	}
	if peak, ok := cell["peak RSS MB"]; ok && (peak == 0 || cell["above idle MB"] > peak) {
		t.Errorf("peak RSS is %v MB and %v MB above idle, want more than 0 and at most the peak", peak, cell["above idle MB"])
	}
}

// Given a sink that tracked the lines 0, 1 and 2, when the store receives
// others, then its check fails.
func TestNullStore_LostOrRepeatedLine(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		numbers []int64
		ok      bool
	}{
		"each line once":                         {[]int64{0, 1, 2}, true},
		"a lost line":                            {[]int64{0, 2}, false},
		"a repeated line":                        {[]int64{0, 1, 1, 2}, false},
		"a repeated line in place of a lost one": {[]int64{0, 1, 1}, false},
		"a line that was not tracked":            {[]int64{0, 1, 7}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &nullStore{unpack: true}
			if err := put(s, tt.numbers); err != nil {
				t.Fatal(err)
			}
			if err := s.checkFirst(3); (err == nil) != tt.ok {
				t.Errorf("check: %v, want ok: %t", err, tt.ok)
			}
		})
	}
}

// put uploads an object with a line for each number.
func put(s *nullStore, numbers []int64) error {
	var body bytes.Buffer
	w := gzip.NewWriter(&body)
	for _, n := range numbers {
		line := calls(1)[0]
		setNumber(line, n)
		w.Write(append(line, '\n'))
	}
	w.Close()
	r, err := http.NewRequest("PUT", "https://null.example.com/segment-logs/source-0/1.gz", &body)
	if err != nil {
		return err
	}
	r.Header.Set("X-Amz-Meta-S3sink-Events", fmt.Sprint(len(numbers)))
	_, err = s.RoundTrip(r)
	return err
}

// Given a page with two sections, when one is updated, then the other and the
// text around both stay the same. A page without the section is refused.
func TestUpdatePage_OneSection(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "page.md")
	page := "# Page\n<!-- bench a -->\nold\n<!-- end of bench a -->\n<!-- bench b -->\nkept\n<!-- end of bench b -->\nend\n"
	if err := os.WriteFile(file, []byte(page), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := updatePage(file, "a", "new\n"); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(file)
	if want := strings.Replace(page, "old", "new", 1); err != nil || string(got) != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
	if err := updatePage(file, "c", "new\n"); err == nil {
		t.Error("a page without the section was updated")
	}
}

// Given docs/performance.md, then it has a section for each measurement, and
// the command of the section has only flags of that measurement.
func TestPerformancePage_Sections(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/performance.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range measurements {
		_, rest, _ := strings.Cut(string(page), "<!-- bench "+m.name+" -->\n")
		text, _, ok := strings.Cut(rest, "<!-- end of bench "+m.name+" -->\n")
		if !ok {
			t.Errorf("no section for %s", m.name)
			continue
		}
		_, command, ok := strings.Cut(text, "`go run . "+m.name)
		command, _, ok2 := strings.Cut(command, "`")
		if !ok || !ok2 {
			t.Errorf("no command for %s", m.name)
		}
		f := newFlags(m.name, 1, io.Discard)
		m.prepare(f)
		if err := f.Parse(strings.Fields(command)); err != nil || f.NArg() > 0 {
			t.Errorf("%s: the command in the page, %q: %v", m.name, command, err)
		}
	}
}

// Given sizes with and without a unit, when they are parsed, then invalid ones
// give an error.
func TestBytesFlag_Values(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{"64MiB": 64 << 20, "2GB": 2e9, "1000": 1000, "1GiB": 1 << 30, "-1": 0, "1e9": 0, "": 0, "9999999999GiB": 0} {
		var b bytesFlag
		if err := b.Set(text); int64(b) != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d, %v, want %d", text, b, err, want)
		}
	}
}
