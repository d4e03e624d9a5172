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
	if role := os.Getenv(childVariable); role != "" {
		os.Exit(child(role))
	}
	os.Exit(m.Run())
}

// What each measurement is for is looked at here at a small size: that no child
// finds its books wrong, a line missing, doubled or invented, or a file left in the
// spool. The figures need only be there.
func TestMeasurements(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, args string
		rows       []int             // of each table
		want       map[string]string // a cell of every row of the first table
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

// patience is how long a measurement may take here: a child waits much longer
// for what never comes.
const patience = 2 * time.Minute

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
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		tables, err := do(ctx, &bench{dir: t.TempDir(), rounds: 1, log: t.Output()})
		if err != nil {
			t.Fatal(err)
		}
		return tables
	}
	t.Fatalf("there is no %s", name)
	return nil
}

// checkRow checks that each cell is a figure, and those that are known.
func checkRow(t *testing.T, head, row []string, want map[string]string) {
	t.Helper()
	if len(row) != len(head) {
		t.Fatalf("%d cells under %d heads: %q", len(row), len(head), row)
	}
	cell := map[string]float64{}
	for i, name := range head {
		v, err := strconv.ParseFloat(row[i], 64)
		if name == "" || name == "durability" {
			continue
		}
		if err != nil || v < 0 {
			t.Errorf("%s: %q, want a figure", name, row[i])
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
	if v, ok := cell["bytes of objects, of memory mode"]; ok && (v < 0.8 || v > 1.25) { // of a few events
		t.Errorf("objects of %.3f of the bytes in memory mode", v)
	}
	if peak, above := cell["peak RSS MB"], cell["above idle MB"]; above > peak || peak == 0 {
		t.Errorf("peak %v, above idle %v", peak, above)
	}
}

// A store that never complains proves nothing.
func TestStoreSees(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		numbers []int64
		good    bool
	}{
		"what was tracked": {[]int64{0, 1, 2}, true},
		"a loss":           {[]int64{0, 2}, false},
		"a double":         {[]int64{0, 1, 1, 2}, false},
		"one for another":  {[]int64{0, 1, 1}, false},
		"an invention":     {[]int64{0, 1, 7}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &nullStore{unpack: true}
			if err := put(s, tt.numbers); err != nil {
				t.Fatal(err)
			}
			if err := s.checkFirst(3); (err == nil) != tt.good {
				t.Errorf("got %v", err)
			}
		})
	}
}

// put sends an object of lines with those numbers.
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

func TestUpdate(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "page.md")
	page := "# Page\n<!-- bench a -->\nold\n<!-- end of bench a -->\n<!-- bench b -->\nkept\n<!-- end of bench b -->\nend\n"
	if err := os.WriteFile(file, []byte(page), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := update(file, "a", "new\n"); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(file)
	if want := strings.Replace(page, "old", "new", 1); err != nil || string(got) != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
	if err := update(file, "c", "new\n"); err == nil {
		t.Error("a page without a place for it was updated")
	}
}

// Each measurement has its place in the page, with the flags that it has.
func TestPageHasPlaces(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/performance.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range measurements {
		_, rest, _ := strings.Cut(string(page), "<!-- bench "+m.name+" -->\n")
		text, _, ok := strings.Cut(rest, "<!-- end of bench "+m.name+" -->\n")
		if !ok {
			t.Errorf("no place for %s", m.name)
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

func TestSizes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{"64MiB": 64 << 20, "2GB": 2e9, "1000": 1000, "1GiB": 1 << 30, "-1": 0, "1e9": 0, "": 0, "9999999999GiB": 0} {
		var b bytesFlag
		if err := b.Set(text); int64(b) != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d, %v, want %d", text, b, err, want)
		}
	}
}
