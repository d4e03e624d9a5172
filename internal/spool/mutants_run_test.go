//go:build mutants

package spool_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

var (
	matrix = flag.String("matrix", "", "file with the table that TestMutants renews")
	only   = flag.String("mutant", "", "regular expression of the mutants to try")
	asked  = flag.String("ask", "", "the only asker to run, one of "+askerNames())
)

// asker is a test that may detect any mutant.
type asker struct {
	level  string // see docs/durability.md
	test   string // empty: all tests of the folder that are no askers
	folder string
	args   []string
	after  string // matches in its output how much it took
}

// askers run in this order, after the test that the mutant names.
var askers = []asker{
	{"1", byCrashes, "internal/spool", []string{"-crashes", "20000"}, `\d+ crashes`},
	{"2", bySinks, ".", nil, `\d+ histories`},
	{"2", byDays, ".", []string{"-days", "8"}, `seed=\d+`},
	{"2", "TestLines_IndependentOfSettings", ".", []string{"-days", "8"}, `seed \d+`},
	{"tests", "", "internal/...", nil, ""},
	{"tests", "", ".", nil, ""},
}

func askerNames() string {
	var all []string
	for _, a := range askers {
		if a.test != "" {
			all = append(all, a.test)
		}
	}
	return strings.Join(all, ", ")
}

// leftOut lists mutants of other journals, and why they do not apply here.
var leftOut = [][2]string{
	{"append to an old run's file", "`vfs` refuses `Append` to a file that it opened, as its tests show"},
	{"a failed batch is written again without `supersedes`", "the journal has no such record and needs none, see rule 10. The mutant *new keys after a failed fsync* would break it"},
	{"offsets reused after a drop", "no code drops a block with lines in the journal. `Track` is refused before it adds a line or not at all, and `Close` leaves the lines there. The result would be one identity with two contents, as with *a block number is reused*"},
}

// Given each mutant, then some test fails. The flag -mutant selects mutants.
//
//	go test -tags mutants -run TestMutants -timeout 1h ./internal/spool -args -matrix ../../docs/durability-mutants.md
func TestMutants(t *testing.T) {
	chosen := regexp.MustCompile(*only)
	rows := make([]string, len(mutants))
	t.Run("all", func(t *testing.T) {
		for i, m := range mutants {
			if !chosen.MatchString(m.name) {
				continue
			}
			t.Run(m.name, func(t *testing.T) {
				t.Parallel()
				rows[i] = m.try(t)
			})
		}
	})
	if *matrix == "" || *asked != "" {
		return
	}
	text, err := os.ReadFile(*matrix)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(*matrix, []byte(renew(string(text), rows)), 0o644); err != nil {
		t.Fatal(err)
	}
}

const (
	tableHead = "\n| mutant | rule | level | noticed by | after |\n"
	tableRule = "|---|---|---|---|---|\n"
)

// renew returns the page with the new rows. For the other mutants it keeps the
// old ones.
func renew(page string, rows []string) string {
	intro, old, _ := strings.Cut(page, tableHead)
	text := intro + tableHead + tableRule
	gaps := ""
	for i, m := range mutants {
		row := rows[i]
		for line := range strings.Lines(old) {
			if row == "" && strings.HasPrefix(line, "| "+m.name+" |") {
				row = line
			}
		}
		text += cmp.Or(row, fmt.Sprintf("| %s | %s | | not tried | |\n", m.name, cmp.Or(m.rule, "-")))
		if m.why != "" {
			gaps += listItem(m.name, m.why)
		}
	}
	text += "\n## Not noticed\n\n" + gaps + "\n## Left out\n\n"
	for _, l := range leftOut {
		text += listItem(l[0], l[1])
	}
	return text
}

// listItem returns an item of a Markdown list, wrapped at 100 columns.
func listItem(name, reason string) string {
	text := ""
	line := "-"
	for _, word := range strings.Fields(fmt.Sprintf("*%s*: %s.", name, reason)) {
		if utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > 100 {
			text += line + "\n"
			line = " "
		}
		line += " " + word
	}
	return text + line + "\n"
}

// try runs askers until one detects the mutant, and returns the mutant's row.
func (m *mutant) try(t *testing.T) string {
	began := time.Now()
	overlay := m.overlay(t)
	by := m.askers()
	for _, a := range by {
		test, after, noticed := a.ask(t, overlay)
		if noticed {
			t.Logf("%s: %s %s, in %v", m.name, test, after, time.Since(began).Round(time.Second))
			return fmt.Sprintf("| %s | %s | %s | %s | %s |\n", m.name, cmp.Or(m.rule, "-"), a.level, test, cmp.Or(after, "-"))
		}
	}
	t.Logf("%s: not detected, in %v", m.name, time.Since(began).Round(time.Second))
	if m.why == "" && *asked == "" {
		t.Errorf("%s: no test detects it", m.name)
	}
	return fmt.Sprintf("| %s | %s | - | **nothing** | - |\n", m.name, cmp.Or(m.rule, "-"))
}

// askers returns the askers of a mutant, with the test that it names first.
func (m *mutant) askers() (all []asker) {
	folder, test, named := strings.Cut(m.by, " ")
	if named && *asked == "" {
		all = append(all, asker{level: "tests", test: test, folder: folder})
	}
	for _, a := range askers {
		switch {
		case *asked != "" && a.test != *asked:
		case a.test != "" && a.test == m.by:
			all = append([]asker{a}, all...)
		default:
			all = append(all, a)
		}
	}
	return all
}

// ask reports whether the test fails, which test failed, and after how much.
func (a *asker) ask(t *testing.T, overlay string) (test, after string, noticed bool) {
	t.Helper()
	args := []string{"test", "-count=1", "-failfast", "-vet=off", "-timeout=3m", "-overlay", overlay}
	if a.level == "tests" && a.test != "" {
		args[4] = "-timeout=1m" // each of them takes seconds
	}
	if a.test != "" {
		args = append(args, "-run", "^"+a.test+"$")
	} else {
		args = append(args, "-skip", "^("+strings.ReplaceAll(askerNames(), ", ", "|")+"|TestMutantsApply)$")
	}
	args = append(args, "./"+a.folder)
	if a.args != nil {
		args = append(append(args, "-args"), a.args...)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.WaitDelay = "../..", time.Second
	out, err := cmd.CombinedOutput()
	if err == nil {
		return "", "", false
	}
	if !errors.As(err, new(*exec.ExitError)) || bytes.Contains(out, []byte("[build failed]")) || bytes.Contains(out, []byte("[setup failed]")) {
		t.Fatalf("%v: %s", err, out)
	}
	test = a.test
	if found := regexp.MustCompile(`--- FAIL: (Test\w+)`).FindSubmatch(out); test == "" && found != nil {
		test = string(found[1])
	}
	switch {
	case bytes.Contains(out, []byte("test timed out")):
		after = "it hangs"
	case bytes.Contains(out, []byte("panic:")):
		after = "it panics"
	case a.after != "":
		after = string(regexp.MustCompile(a.after).Find(out))
		if after == "1 histories" {
			after = "1 history"
		}
	}
	return cmp.Or(test, a.folder), after, true
}

// overlay writes the mutant's files, and a file that makes go build use them
// instead of the originals.
func (m *mutant) overlay(t *testing.T) string {
	t.Helper()
	texts, err := m.texts()
	if err != nil {
		t.Fatal(err)
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir, replace := t.TempDir(), map[string]string{}
	write := func(name, text string) string {
		at := filepath.Join(dir, name)
		if err := os.WriteFile(at, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return at
	}
	for file, text := range texts {
		replace[filepath.Join(root, file)] = write(fmt.Sprintf("%d.go", len(replace)), text)
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	return write("overlay.json", string(text))
}
