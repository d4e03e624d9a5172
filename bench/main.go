package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
)

// measurements are the subcommands. prepare defines the flags of one and
// returns the function that runs it.
var measurements = []struct {
	name, summary string
	prepare       func(*flags) func(context.Context, *bench) ([]table, error)
	rounds        int // the default of -rounds
}{
	{"recover", "start on the spool of a killed process, with a cold page cache", measureRecover, 5},
	{"backlog", "the same with 100,000 objects, and their delivery", measureBacklog, 3},
	{"sources", "commit the events of many sources, compared with one source", measureSources, 1},
	{"spool", "SyncInterval at full speed, compared with memory mode", measureSpool, 5},
	{"sync", "a consumer that commits its offsets, compared with one that does not", measureSync, 5},
	{"synceach", "SyncEach, compared with a bare file", measureEach, 4},
}

// bench holds the settings of one measurement.
type bench struct {
	dir          string // empty at the start
	rounds       int
	dropAllCache bool // see dropCache
	log          io.Writer
}

func (b *bench) logf(format string, args ...any) { fmt.Fprintf(b.log, format+"\n", args...) }

func main() {
	if name := os.Getenv(childVariable); name != "" {
		os.Exit(child(name))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func usage(log io.Writer) error {
	fmt.Fprintln(log, "usage: go run . MEASUREMENT [flags]. Use -h after the name for its flags. MEASUREMENT is all, or:")
	for _, m := range measurements {
		fmt.Fprintf(log, "  %-10s %s\n", m.name, m.summary)
	}
	return flag.ErrHelp
}

func run(ctx context.Context, args []string, out, log io.Writer) error {
	if len(args) == 0 {
		return usage(log)
	}
	known := false
	var failed error // "all" continues after a measurement that fails
	for _, m := range measurements {
		if args[0] != m.name && args[0] != "all" {
			continue
		}
		known = true
		f := newFlags(m.name, m.rounds, log)
		measure := m.prepare(f)
		if err := f.Parse(args[1:]); err != nil {
			return err
		}
		if err := f.measure(ctx, measure, out, log); err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", m.name, err))
		}
	}
	if !known {
		return usage(log)
	}
	return failed
}

// flags holds the flags of one measurement. The named fields are the flags that
// every measurement has.
type flags struct {
	*flag.FlagSet
	dir, page    string
	rounds       int
	dropAllCache bool
}

func newFlags(name string, rounds int, log io.Writer) *flags {
	f := &flags{FlagSet: flag.NewFlagSet(name, flag.ContinueOnError)}
	f.SetOutput(log)
	f.StringVar(&f.dir, "dir", os.TempDir(), "create the spools in this `directory`, which should be on a disk")
	f.StringVar(&f.page, "update", "", "write the tables into this Markdown `file`, such as ../docs/performance.md")
	f.IntVar(&f.rounds, "rounds", rounds, "`number` of turns of each alternative")
	f.BoolVar(&f.dropAllCache, "drop", true, "before a cold start drop the page cache of the whole machine, which needs root; false: only that of the spool's files")
	return f
}

func (f *flags) measure(ctx context.Context, do func(context.Context, *bench) ([]table, error), out, log io.Writer) error {
	if name, memory := fileSystem(f.dir); memory {
		fmt.Fprintf(log, "%s is in memory (%s), so the figures say nothing about a disk: name a directory on a disk with -dir\n", f.dir, name)
	}
	dir, err := os.MkdirTemp(f.dir, "s3sink-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	machine := environment(dir)
	tables, err := do(ctx, &bench{dir: dir, rounds: max(1, f.rounds), dropAllCache: f.dropAllCache, log: log})
	if err != nil {
		return err
	}
	text := section(f.Name(), f.FlagSet, machine, tables)
	if _, err := fmt.Fprintf(out, "%s\n%s\n", text, legend); err != nil || f.page == "" {
		return err
	}
	return updatePage(f.page, f.Name(), text)
}

// unpackUsage is the help of the -unpack flag.
const unpackUsage = "decompress every object and check that each line was delivered once; this is slow"

// size defines a flag for a number of bytes, such as 64MiB.
func (f *flags) size(name, value, usage string) *bytesFlag {
	b := new(bytesFlag)
	if err := b.Set(value); err != nil {
		panic(err)
	}
	f.Var(b, name, usage)
	return b
}

type bytesFlag int64

var units = []struct {
	name  string
	bytes int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"", 1}}

func (b *bytesFlag) Set(text string) error {
	for _, u := range units {
		digits, ok := strings.CutSuffix(text, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(digits, 10, 64)
		if err != nil || n <= 0 || n > (1<<62)/u.bytes {
			return fmt.Errorf("%q is not a size: want a positive number of bytes such as 64MiB", text)
		}
		*b = bytesFlag(n * u.bytes)
		return nil
	}
	return nil
}

func (b *bytesFlag) String() string {
	for _, u := range units {
		if n := int64(*b); n%u.bytes == 0 {
			return fmt.Sprint(n/u.bytes, u.name)
		}
	}
	return ""
}
