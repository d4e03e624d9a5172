package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/s3sinktest"
)

// lot is a number of lives on one spool, followed by a check of the bucket.
type lot struct {
	name       string // kind of the lot
	seed       uint64
	durability s3sink.Durability
	lives      int
	dir        string                  // for the spool or its image; removed if the check succeeds
	fs         string                  // file system for power cuts; "": only processes are killed
	alive      func(lives, acks int64) // counts progress

	rng      *rand.Rand
	ledger   ledger
	tally    tally
	server   *s3sinktest.Server
	history  []string // one line for each life
	problems []string
	disk     *disk
}

const (
	bucket      = "torture"
	accessKeyID = "AKIATORTURE000000000"
	secret      = "torture/secret/access/key/00000000000000"
)

// run runs the lot. It returns an error if the lot failed for a reason outside the
// library.
func (l *lot) run(ctx context.Context) (err error) {
	l.rng = rand.New(rand.NewPCG(l.seed, 1))
	l.ledger = ledger{seed: l.seed, events: map[place][]byte{}}
	l.server = s3sinktest.NewServer()
	defer l.server.Close()
	l.server.CreateBucket(bucket, region)
	l.server.AddUser(s3sinktest.User{AccessKeyID: accessKeyID, SecretAccessKey: secret})

	spool := filepath.Join(l.dir, "spool")
	if l.fs != "" {
		if l.disk, err = makeDisk(l.dir, l.fs); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, l.disk.release()) }()
		spool = filepath.Join(l.disk.mountPoint, "spool")
	}
	j := job{
		Endpoint: l.server.URL(), Bucket: bucket, AccessKeyID: accessKeyID, Secret: secret,
		Dir: spool, Durability: l.durability, Seed: l.seed, Sources: 1 + l.rng.IntN(6),
		CreateOnly: s3sink.CreateOnlyOn, MaxObjectAge: time.Minute,
	}
	if l.rng.IntN(2) == 0 {
		j.CreateOnly = s3sink.CreateOnlyOff
	}
	l.injectFaults()
	for ; int(j.Life) < l.lives && ctx.Err() == nil; j.Life++ {
		if err := l.runLife(j); err != nil {
			return err
		}
		l.tally.Lives++
		l.alive(1, 0)
	}
	if ctx.Err() != nil {
		return nil // the signal may have ended the children too
	}
	l.server.ClearFaults()
	err = l.drain(j)
	if err != nil && l.disk != nil { // the kernel may report an error from before the cut
		if err := l.disk.remount(); err != nil {
			return err
		}
		err = l.drain(j)
	}
	if err != nil {
		l.tally.Trouble++
		l.complain("the draining child: %v", err)
	}
	left, err := leftovers(spool)
	if err != nil || len(left) > 0 {
		l.tally.Left++
		l.complain("files left in the spool after everything was delivered: %v %v", left, err)
	}
	l.ledger.check(l.server.Objects(bucket), l.server.Requests(), j.CreateOnly == s3sink.CreateOnlyOn, &l.tally, l.complain)
	l.alive(0, l.ledger.acked)
	return nil
}

// injectFaults makes the server unreliable: of eight requests, one is refused or
// loses its answer, and one is slow.
func (l *lot) injectFaults() {
	var mu sync.Mutex
	rng := rand.New(rand.NewPCG(l.seed, 2))
	one := func(in int) func(*http.Request) bool {
		return func(*http.Request) bool {
			mu.Lock()
			defer mu.Unlock()
			return rng.IntN(in) == 0
		}
	}
	l.server.Inject(s3sinktest.Fault{Operation: "PutObject", Status: http.StatusServiceUnavailable, Match: one(16)})
	l.server.Inject(s3sinktest.Fault{Operation: "PutObject", LoseResponse: true, Match: one(16)})
	l.server.Inject(s3sinktest.Fault{Operation: "PutObject", CutAfter: 50, Match: one(32)})
	l.server.Inject(s3sinktest.Fault{Operation: "PutObject", Delay: 20 * time.Millisecond, Match: one(16)})
	l.server.Inject(s3sinktest.Fault{Operation: "PutObject", ReadRate: 20_000, Match: one(16)})
}

func (l *lot) complain(format string, args ...any) {
	if len(l.problems) < 200 {
		l.problems = append(l.problems, fmt.Sprintf(format, args...))
	}
}

// runLife runs one child to its end.
func (l *lot) runLife(j job) error {
	rng := l.rng
	j.MaxObjectEvents = []int64{0, 1, 7, 50}[rng.IntN(4)]
	j.MaxObjectAge = []time.Duration{100 * time.Millisecond, time.Minute}[rng.IntN(2)] // sealing a segment also commits
	j.Pause = upTo(rng, 3*time.Millisecond)
	if l.durability == s3sink.SyncInterval {
		j.Pause += time.Millisecond
	}
	if rng.IntN(4) == 0 {
		j.Flush = time.Millisecond + upTo(rng, 30*time.Millisecond)
	}
	if rng.IntN(8) == 0 {
		j.CloseAfter, j.CloseFor = time.Millisecond+upTo(rng, 30*time.Millisecond), upTo(rng, 20*time.Millisecond)
	}
	quiet := l.durability == s3sink.SyncInterval && rng.IntN(3) == 0
	if quiet { // only the interval causes commits
		j.MaxObjectEvents, j.MaxObjectAge, j.Flush, j.CloseAfter = 0, time.Minute, 0, 0
	}
	begin := time.Now()
	c, err := start(&j)
	if err != nil {
		return err
	}

	// The moment of the kill: during the start and recovery, after the first
	// events, or at any time.
	var how string
	most := begin.Add(30 * time.Second)
	switch rng.IntN(8) {
	case 0, 1:
		wait := upTo(rng, 25*time.Millisecond)
		how = fmt.Sprintf("%v after its start", wait)
		c.wait(closed, 1, begin.Add(wait))
	case 2, 3:
		n := 1 + rng.IntN(40)
		how = fmt.Sprintf("after %d acknowledgements", n)
		c.wait(acked, n, most)
	default:
		wait := upTo(rng, 40*time.Millisecond)
		if l.durability == s3sink.SyncInterval && (quiet || rng.IntN(2) == 0) {
			wait += upTo(rng, 5*commitInterval)
		}
		how = fmt.Sprintf("%v after New", wait)
		c.wait(started, 1, most)
		c.wait(closed, 1, time.Now().Add(wait))
	}

	cut, at := c.recordCount(), time.Now() // events acknowledged later may not be on disk
	if l.disk != nil {
		flag := 1 + int(j.Life)%2
		how += fmt.Sprintf(", flag %d", flag)
		if err := l.disk.cut(flag); err != nil {
			c.kill()
			return errors.Join(err, c.end(true))
		}
		time.Sleep(upTo(rng, 5*time.Millisecond)) // uploads continue, and must not deliver events that are not on disk
	}
	c.kill()
	ended := c.end(true)
	l.ledger.add(j.Life, l.durability, c.records, cut, at, l.disk != nil)
	l.history = append(l.history, fmt.Sprintf("life %d: %s, %d records of which %d before; %+v; %s",
		j.Life, how, len(c.records), cut, j, c.stderr.String()))
	if ended != nil && l.disk == nil {
		l.tally.Trouble++
		l.complain("life %d: %v: %s", j.Life, ended, c.stderr.String())
	}
	if c.stderr.damaged {
		l.tally.Unreadable++
		l.complain("life %d: %s", j.Life, c.stderr.String())
	}
	if l.disk != nil {
		return l.disk.remount()
	}
	return nil
}

func (l *lot) drain(j job) error {
	j.Drain = true
	c, err := start(&j)
	if err != nil {
		return err
	}
	if err := c.end(false); err != nil {
		return fmt.Errorf("%w: %s", err, c.stderr.String())
	}
	if c.stderr.damaged {
		l.tally.Unreadable++
		l.complain("the draining child: %s", c.stderr.String())
	}
	return nil
}

// removeOrReport removes the directory of the lot, or writes the problems into it.
func (l *lot) removeOrReport() error {
	if !l.tally.bad() {
		return os.RemoveAll(l.dir)
	}
	text := fmt.Sprintf("%s, %v, seed %d: %v\n\n%s\n\n%s\n", l.name, l.durability, l.seed, l.tally,
		strings.Join(l.problems, "\n"), strings.Join(l.history, "\n"))
	return os.WriteFile(filepath.Join(l.dir, "report.txt"), []byte(text), 0o600)
}
