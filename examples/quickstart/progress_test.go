package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/s3sink/s3sink/internal/terminal"
)

// Given a terminal, when a message is printed, then it appears above the
// progress line.
func TestConsole_Terminal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		con := &console{w: &out, terminal: true}
		seen := 0
		stop := con.watch(func() string { seen++; return fmt.Sprint("line ", seen) })
		time.Sleep(500 * time.Millisecond)
		fmt.Fprintln(con, "a message")
		time.Sleep(200 * time.Millisecond)
		stop()
		fmt.Fprintln(con, "the end")
		const want = "\r\x1b[Kline 1\r\x1b[Kline 2\r\x1b[Ka message\n\r\x1b[Kline 3\r\x1b[Kthe end\n"
		if out.String() != want {
			t.Errorf("got %q, want %q", out.String(), want)
		}
	})
}

// Given a pipe, a file or the null device as standard error, then there is no
// progress line.
func TestConsole_PipeOrFile(t *testing.T) {
	t.Parallel()
	file, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	reader, pipe, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if terminal.Is(file) || terminal.Is(pipe) || terminal.Is(null) || terminal.Is(&bytes.Buffer{}) {
		t.Error("Is reports a terminal for a file, a pipe, the null device or a buffer")
	}

	synctest.Test(t, func(t *testing.T) {
		stop := newConsole(pipe).watch(func() string {
			t.Error("the progress line is printed to a pipe")
			return ""
		})
		time.Sleep(time.Minute)
		stop()
	})

	var stdout strings.Builder
	input := strings.NewReader(strings.Repeat("{\"a\":1}\n", 5))
	if code := run(t.Context(), []string{"-stdin"}, input, &stdout, pipe); code != 0 {
		t.Errorf("exit code %d", code)
	}
	pipe.Close()
	stderr, err := io.ReadAll(reader)
	if err != nil {
		t.Fatal(err)
	}
	if len(stderr) > 0 || !strings.Contains(stdout.String(), "events in 5 = events out 5 ✓") {
		t.Errorf("stderr %q, want nothing; stdout:\n%s", stderr, stdout.String())
	}
}
