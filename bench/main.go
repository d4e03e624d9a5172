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

// measurements are what the command can be told to do.
var measurements = []struct {
	name, does string
	prepare    func(*flags) func(context.Context, *bench) ([]table, error)
	rounds     int
}{
	{"recover", "open a spool that a killed process has left, cold", measureRecover, 5},
	{"backlog", "the same with very many objects; and deliver them", measureBacklog, 3},
	{"sources", "commit the events of many sources, beside those of one", measureSources, 1},
	{"spool", "SyncInterval at full speed, beside memory mode", measureSpool, 5},
	{"sync", "a consumer that commits its offsets, beside one that does not", measureSync, 5},
	{"synceach", "SyncEach, beside a bare file", measureEach, 4},
}

// bench is where and how often something is measured.
type bench struct {
	dir    string // of its own
	rounds int
	drop   bool
	log    io.Writer
}

func (b *bench) say(format string, args ...any) { fmt.Fprintf(b.log, format+"\n", args...) }

func main() {
	if role := os.Getenv(childVariable); role != "" {
		os.Exit(child(role))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func usage(log io.Writer) error {
	fmt.Fprintln(log, "go run . all, or one of these; -h behind it tells its flags")
	for _, m := range measurements {
		fmt.Fprintf(log, "  %-10s %s\n", m.name, m.does)
	}
	return flag.ErrHelp
}

func run(ctx context.Context, args []string, out, log io.Writer) error {
	if len(args) == 0 {
		return usage(log)
	}
	known := false
	var failed error // of all, the others go on
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

// flags are those of one measurement, and those of all.
type flags struct {
	*flag.FlagSet
	dir, update string
	rounds      int
	drop        bool
}

func newFlags(name string, rounds int, log io.Writer) *flags {
	f := &flags{FlagSet: flag.NewFlagSet(name, flag.ContinueOnError)}
	f.SetOutput(log)
	f.StringVar(&f.dir, "dir", os.TempDir(), "where spools are made")
	f.StringVar(&f.update, "update", "", "a `page` to write the tables into, such as ../docs/performance.md")
	f.IntVar(&f.rounds, "rounds", rounds, "of everything that takes turns")
	f.BoolVar(&f.drop, "drop", true, "drop all of the machine's page cache for a cold start, as root; else only the spool's")
	return f
}

func (f *flags) measure(ctx context.Context, do func(context.Context, *bench) ([]table, error), out, log io.Writer) error {
	if name, memory := fileSystem(f.dir); memory {
		fmt.Fprintf(log, "%s is in memory (%s): nothing will be as with a disk; -dir names another\n", f.dir, name)
	}
	dir, err := os.MkdirTemp(f.dir, "s3sink-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	place := placeOf(dir)
	tables, err := do(ctx, &bench{dir: dir, rounds: max(1, f.rounds), drop: f.drop, log: log})
	if err != nil {
		return err
	}
	text := section(f.Name(), f.FlagSet, place, tables)
	if _, err := fmt.Fprintf(out, "%s\n%s\n", text, legend); err != nil || f.update == "" {
		return err
	}
	return update(f.update, f.Name(), text)
}

// size is a flag for a number of bytes, such as 64MiB.
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
			return fmt.Errorf("want bytes such as 64MiB")
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
