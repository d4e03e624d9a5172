package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/s3sink/s3sink"
)

// plan holds the flags of the command.
type plan struct {
	kills    int // for each durability
	cuts     int // for each file system
	full     int // how often each file system is filled, in each way
	systems  []string
	each     bool // SyncEach
	interval bool // SyncInterval
	lot      int  // lives on one spool before the bucket is checked
	jobs     int  // lots in parallel
	seed     uint64
	dir      string
	memory   string // a directory in memory, for SyncInterval and for images
}

func main() {
	if os.Getenv(childVariable) != "" {
		os.Exit(child())
	}
	p := plan{each: true, interval: true}
	flag.IntVar(&p.kills, "kills", 1000, "number of killed children, for each durability")
	flag.IntVar(&p.cuts, "cuts", 0, "number of power cuts, for each file system")
	full := flag.Bool("full", false, "fill file systems instead: see -runs")
	flag.IntVar(&p.full, "runs", 5, "how often -full fills each file system, in each way")
	systems := flag.String("fs", "ext4,xfs", "file systems for -cuts and -full")
	durability := flag.String("durability", "each,interval", "")
	flag.IntVar(&p.lot, "lot", 100, "lives on one spool, before a child drains it and the bucket is checked")
	flag.IntVar(&p.jobs, "jobs", 4, "number of spools in parallel")
	flag.Uint64Var(&p.seed, "seed", 0, "seed of everything except timing; 0: a random seed")
	flag.StringVar(&p.dir, "dir", os.TempDir(), "directory for spools")
	flag.StringVar(&p.memory, "memory", memoryDir(), "directory in memory, for spools with SyncInterval and for images: a slow disk would distort these")
	flag.Parse()
	p.systems = strings.Split(*systems, ",")
	p.each, p.interval = strings.Contains(*durability, "each"), strings.Contains(*durability, "interval")
	p.memory = cmp.Or(p.memory, p.dir)
	work := p.run
	if *full {
		work = p.fill
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := work(ctx, os.Stdout); err != nil {
		fmt.Println("FAIL", err)
		os.Exit(1)
	}
}

// memoryDir returns a directory in memory, or "".
func memoryDir() string {
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		return "/dev/shm"
	}
	return ""
}

// kind describes lots with the same durability and file system.
type kind struct {
	name       string
	durability s3sink.Durability
	fs, dir    string
	lives      int
}

func (p *plan) kinds(out io.Writer) (all []kind) {
	var levels []kind
	if p.each {
		levels = append(levels, kind{name: "SyncEach", durability: s3sink.SyncEach, dir: p.dir})
	}
	if p.interval {
		levels = append(levels, kind{name: "SyncInterval", durability: s3sink.SyncInterval, dir: p.memory})
	}
	for _, k := range levels {
		k.name, k.lives = "kills "+k.name, p.kills
		all = append(all, k)
	}
	for _, fs := range p.systems {
		if p.cuts == 0 {
			break
		}
		if why := whyUnavailable(fs); why != "" {
			fmt.Fprintf(out, "SKIP cuts on %s: %s\n", fs, why)
			continue
		}
		for i, k := range levels {
			k.name, k.fs, k.dir = "cuts "+fs+" "+k.name, fs, p.memory
			if k.lives = p.cuts; len(levels) > 1 { // most cuts for the level with the stronger promise
				k.lives = []int{p.cuts - p.cuts/4, p.cuts / 4}[i]
			}
			all = append(all, k)
		}
	}
	return all
}

// run runs every kind of lots. It returns an error if a promise was broken.
func (p *plan) run(ctx context.Context, out io.Writer) error {
	if p.seed == 0 {
		p.seed = rand.Uint64()
	}
	begin := time.Now()
	var bad []string
	for i, k := range p.kinds(out) {
		t, problems, err := p.runLots(ctx, out, uint64(i), k)
		if err != nil {
			return fmt.Errorf("%s did not complete: %w", k.name, err)
		}
		bad = append(bad, problems...)
		if t.Lives > 0 {
			fmt.Fprintf(out, "%-24s %6d cycles, %v\n", k.name, t.Lives, t)
		}
	}
	fmt.Fprintf(out, "%.0f seconds, seed %d\n", time.Since(begin).Seconds(), p.seed)
	if len(bad) > 0 {
		return errors.New(strings.Join(bad, "\n"))
	}
	return ctx.Err()
}

// runLots runs all lots of a kind, p.jobs of them in parallel.
func (p *plan) runLots(ctx context.Context, out io.Writer, number uint64, k kind) (sum tally, problems []string, failed error) {
	var lives, acks atomic.Int64
	stop := progress(out, func() string { return fmt.Sprintf("%s %d/%d", k.name, lives.Load(), k.lives) })
	defer stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	var mu sync.Mutex
	var wg sync.WaitGroup
	slots := make(chan struct{}, max(1, p.jobs))
	for n := 0; n*p.lot < k.lives; n++ {
		slots <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-slots }()
			l, err := p.runLot(ctx, k, rand.New(rand.NewPCG(p.seed, number<<32|uint64(n))).Uint64(), min(p.lot, k.lives-n*p.lot),
				func(life, ack int64) { lives.Add(life); acks.Add(ack) })
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = errors.Join(failed, err)
				cancel()
				return
			}
			sum.add(l.tally)
			if l.tally.bad() {
				problems = append(problems, fmt.Sprintf("%s, seed %d, lot %d: %v\n  %s\n  see %s", k.name, p.seed, n, l.tally,
					strings.Join(l.problems[:min(len(l.problems), 5)], "\n  "), filepath.Join(l.dir, "report.txt")))
			}
		})
	}
	wg.Wait()
	return sum, problems, failed
}

// runLot runs one lot in a new directory.
func (p *plan) runLot(ctx context.Context, k kind, seed uint64, lives int, alive func(lives, acks int64)) (*lot, error) {
	dir, err := os.MkdirTemp(k.dir, "s3sink-torture-")
	if err != nil {
		return nil, err
	}
	l := &lot{name: k.name, seed: seed, durability: k.durability, lives: lives, dir: dir, fs: k.fs, alive: alive}
	if err := l.run(ctx); err != nil {
		return nil, fmt.Errorf("%w (see %s)", err, dir)
	}
	return l, l.removeOrReport()
}

// progress writes a line every second on a terminal, where it overwrites the
// previous one, and every 20 seconds elsewhere.
func progress(out io.Writer, line func() string) (stop func()) {
	every, format := 20*time.Second, "%s\n"
	if f, ok := out.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			every, format = time.Second, "\r%s "
		}
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-time.After(every):
				fmt.Fprintf(out, format, line())
			case <-done:
				if format[0] == '\r' {
					fmt.Fprint(out, "\r")
				}
				return
			}
		}
	}()
	return func() { close(done); <-ended }
}
