package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/s3sinktest"
)

// filling is a way to fill a volume.
type filling struct {
	name       string
	durability s3sink.Durability
	kill       bool // the child that filled it is killed, and another child drains it
	others     bool // a file of another program fills it, and S3 is available all the time
}

var fillings = []filling{
	{name: "same process", durability: s3sink.SyncEach},
	{name: "killed", durability: s3sink.SyncEach, kill: true},
	{name: "others' files, SyncEach", durability: s3sink.SyncEach, others: true},
	{name: "others' files, SyncInterval", durability: s3sink.SyncInterval, others: true},
}

const (
	drainWithin = time.Minute      // after S3 has returned
	fillWithin  = 3 * time.Minute  // enough for a slow machine and the largest volume
	reserveName = "s3sink.reserve" // name of the spool's file that is removed on a full volume
)

// fill fills volumes in every way. It returns an error if one does not drain.
func (p *plan) fill(ctx context.Context, out io.Writer) error {
	if p.seed == 0 {
		p.seed = rand.Uint64()
	}
	begin := time.Now()
	var bad []string
	for _, fs := range p.systems {
		if why := whyUnavailable(fs); why != "" {
			fmt.Fprintf(out, "SKIP full %s: %s\n", fs, why)
			continue
		}
		for _, how := range fillings {
			for n := range p.full {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				f := &full{filling: how, fs: fs, seed: rand.New(rand.NewPCG(p.seed, uint64(n))).Uint64()}
				err := f.run(ctx, p.memory)
				if err != nil {
					return fmt.Errorf("full %s, %s did not complete: %w", fs, how.name, err)
				}
				fmt.Fprintf(out, "full %-6s %-28s %v\n", fs, how.name, f)
				if f.tally.bad() {
					bad = append(bad, fmt.Sprintf("full %s, %s, seed %d: %v\n  %s", fs, how.name, p.seed, f.tally,
						strings.Join(f.problems[:min(len(f.problems), 5)], "\n  ")))
				}
			}
		}
	}
	fmt.Fprintf(out, "%.0f seconds, seed %d\n", time.Since(begin).Seconds(), p.seed)
	if len(bad) > 0 {
		return errors.New(strings.Join(bad, "\n"))
	}
	return nil
}

// full is one volume that is filled and drained.
type full struct {
	filling
	fs   string
	seed uint64

	disk     *disk
	spool    string
	server   *s3sinktest.Server
	ledger   ledger
	tally    tally
	problems []string

	reserve   int64         // bytes of the spool's reserve while the volume was full
	freeFull  int64         // free bytes while the volume was full
	freeEnd   int64         // free bytes after everything was delivered, including the reserve
	delivered int64         // acknowledged events that were delivered in time
	took      time.Duration // from the return of S3 until everything was delivered
}

func (f *full) String() string {
	return fmt.Sprintf("%d of %d acknowledged events delivered in %.1f s; free when full %d KiB and a reserve of %d KiB, free at the end %d KiB; %v",
		f.delivered, f.ledger.acked, f.took.Seconds(), f.freeFull>>10, f.reserve>>10, f.freeEnd>>10, f.tally)
}

func (f *full) complain(format string, args ...any) {
	if len(f.problems) < 200 {
		f.problems = append(f.problems, fmt.Sprintf(format, args...))
	}
}

// run fills and drains the volume. It returns an error if that failed for a reason
// outside the library.
func (f *full) run(ctx context.Context, memory string) (err error) {
	dir, err := os.MkdirTemp(memory, "s3sink-torture-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if f.disk, err = makeDisk(dir, f.fs); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.disk.release()) }()
	f.spool = filepath.Join(f.disk.mountPoint, "spool")
	f.ledger = ledger{seed: f.seed, events: map[place][]byte{}}
	f.server = s3sinktest.NewServer()
	defer f.server.Close()
	f.server.CreateBucket(bucket, region)
	f.server.AddUser(s3sinktest.User{AccessKeyID: accessKeyID, SecretAccessKey: secret})
	j := job{
		Endpoint: f.server.URL(), Bucket: bucket, AccessKeyID: accessKeyID, Secret: secret,
		Dir: f.spool, Durability: f.durability, CreateOnly: s3sink.CreateOnlyOn, MaxObjectAge: 5 * time.Second,
		Seed: f.seed, Life: wideLife, Sources: 6, StopRefused: 3 * time.Second,
	}
	if f.others {
		j.StopAfter, j.StopRefused, j.Pause = 10*time.Second, 0, 20*time.Millisecond
	}
	f.server.Refuse(!f.others)
	c, err := start(&j)
	if err != nil {
		return err
	}
	defer func() { c.kill(); _ = c.end(true) }() // after an error, which is returned instead
	if f.others {
		c.wait(acked, 100, time.Now().Add(fillWithin))
		// A stopped child cannot release its reserve while the other file still grows.
		if err := c.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			return err
		}
		err := f.disk.fillFromOutside()
		if err := errors.Join(err, c.cmd.Process.Signal(syscall.SIGCONT)); err != nil {
			return err
		}
	}
	c.wait(stopped, j.Sources, time.Now().Add(fillWithin))
	if f.freeFull, err = f.disk.free(); err != nil {
		return err
	}
	if info, err := os.Stat(filepath.Join(f.spool, reserveName)); err == nil {
		f.reserve = info.Size()
	}
	if f.kill {
		c.kill()
		if err := c.end(true); err != nil {
			return err
		}
		next := j
		next.Life, next.Sources = j.Life+1, 0
		f.server.Refuse(false)
		d, err := start(&next)
		if err != nil {
			return err
		}
		f.add(c)
		f.awaitDelivery(ctx, d)
		d.kill()
		if err := d.end(true); err != nil {
			return err
		}
	} else {
		f.server.Refuse(false)
		f.add(c)
		f.awaitDelivery(ctx, c)
		c.kill()
		if err := c.end(true); err != nil {
			return err
		}
	}
	return f.check(j)
}

// add records the events of a child. Every acknowledged event must be delivered: a
// child with SyncInterval is not killed before.
func (f *full) add(c *life) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f.ledger.add(wideLife, s3sink.SyncEach, c.records, len(c.records), time.Now(), false)
}

// awaitDelivery waits until every acknowledged event is in the bucket.
func (f *full) awaitDelivery(ctx context.Context, c *life) {
	begin := time.Now()
	known := map[string]bool{}
	for f.delivered < f.ledger.acked && time.Since(begin) < drainWithin && ctx.Err() == nil {
		select {
		case <-c.done:
			f.tally.Trouble++
			f.complain("the child has ended: %s", c.stderr.String())
			return
		case <-time.After(100 * time.Millisecond):
		}
		for _, o := range f.server.Objects(bucket) {
			if known[o.Key] {
				continue
			}
			known[o.Key] = true
			lines, _ := o.Lines()
			for _, text := range lines {
				var p place
				var n int
				if _, err := fmt.Sscanf(text, `{"source":%d,"life":%d,"n":%d,`, &p.source, &p.life, &n); err == nil && n < len(f.ledger.events[p]) && f.ledger.events[p][n] == must {
					f.delivered++
				}
			}
		}
	}
	if f.took = time.Since(begin); f.delivered < f.ledger.acked {
		f.complain("%d of %d events were not delivered; log of the child: %s", f.ledger.acked-f.delivered, f.ledger.acked, c.stderr.String())
	}
}

// check compares the bucket with the acknowledged events, and checks the spool and
// the free space of the volume.
func (f *full) check(j job) error {
	f.ledger.check(f.server.Objects(bucket), f.server.Requests(), true, &f.tally, f.complain)
	f.tally.Acknowledged = f.ledger.acked
	if f.tally.bad() {
		return nil
	}
	j.Drain, j.Life = true, j.Life+2
	c, err := start(&j)
	if err != nil {
		return err
	}
	if err := c.end(false); err != nil {
		f.tally.Trouble++
		f.complain("the draining child: %v: %s", err, c.stderr.String())
		return nil
	}
	if left, err := leftovers(f.spool); err != nil || len(left) > 0 {
		f.tally.Left++
		f.complain("files left in the spool after everything was delivered: %v %v", left, err)
	}
	if f.freeEnd, err = f.disk.free(); err != nil {
		return err
	}
	if f.freeEnd < f.reserve && !f.others {
		f.tally.Left++
		f.complain("%d bytes are free at the end, less than the reserve of %d", f.freeEnd, f.reserve)
	}
	return nil
}

// fillFromOutside fills the file system with a file of another program.
func (d *disk) fillFromOutside() error {
	f, err := os.Create(filepath.Join(d.mountPoint, "stuff"))
	if err != nil {
		return err
	}
	defer f.Close()
	rng := rand.NewChaCha8([32]byte{})
	for size := 1 << 20; size >= 512; {
		if free, err := d.free(); err != nil || free == 0 {
			return err // the rest is reserved for root
		}
		piece := make([]byte, size)
		rng.Read(piece)
		_, err := f.Write(piece)
		if err == nil && size == 1<<20 {
			err = f.Sync()
		}
		if err != nil {
			size /= 2
		}
	}
	return nil
}

// free returns the number of bytes that are free for a user other than root.
func (d *disk) free() (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(d.mountPoint, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * st.Bsize, nil
}
