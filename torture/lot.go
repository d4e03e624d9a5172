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

// lot is a number of lives on one spool, and the look at the bucket behind
// them.
type lot struct {
	name       string // what is done to it
	seed       uint64
	durability s3sink.Durability
	lives      int
	dir        string                  // of its own, for the spool or its image; removed if all is well
	fs         string                  // "" for a directory that only processes die on
	alive      func(lives, acks int64) // progress

	rng      *rand.Rand
	ledger   ledger
	tally    tally
	server   *s3sinktest.Server
	history  []string // a line for each life
	problems []string
	disk     *disk
}

const (
	bucket      = "torture"
	accessKeyID = "AKIATORTURE000000000"
	secret      = "torture/secret/access/key/00000000000000"
)

// run returns an error if the lot could not be carried through for a reason
// that is not the library's.
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
	l.fail()
	for ; int(j.Life) < l.lives && ctx.Err() == nil; j.Life++ {
		if err := l.life(j); err != nil {
			return err
		}
		l.tally.Lives++
		l.alive(1, 0)
	}
	if ctx.Err() != nil {
		return nil // the children may have been told to end too
	}
	l.server.ClearFaults()
	err = l.drain(j)
	if err != nil && l.disk != nil { // the kernel may still report an error from before the cut
		if err := l.disk.again(); err != nil {
			return err
		}
		err = l.drain(j)
	}
	if err != nil {
		l.tally.Trouble++
		l.complain("the last child, which only uploads: %v", err)
	}
	left, err := leftovers(spool)
	if err != nil || len(left) > 0 {
		l.tally.Left++
		l.complain("left in the spool when all is delivered: %v %v", left, err)
	}
	l.ledger.check(l.server.Objects(bucket), l.server.Requests(), j.CreateOnly == s3sink.CreateOnlyOn, &l.tally, l.complain)
	l.alive(0, l.ledger.acked)
	return nil
}

// fail makes the server bad: one request in eight is refused or its answer
// lost, and one in eight is slow.
func (l *lot) fail() {
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

// life runs one child to its end.
func (l *lot) life(j job) error {
	rng := l.rng
	j.MaxObjectEvents = []int64{0, 1, 7, 50}[rng.IntN(4)]
	j.MaxObjectAge = []time.Duration{100 * time.Millisecond, time.Minute}[rng.IntN(2)] // a seal is a commit too
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
	if quiet { // nothing but the interval commits
		j.MaxObjectEvents, j.MaxObjectAge, j.Flush, j.CloseAfter = 0, time.Minute, 0, 0
	}
	begin := time.Now()
	c, err := start(&j)
	if err != nil {
		return err
	}

	// The moment: while it starts and recovers, with the first events, or
	// whenever it comes.
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

	cut, at := c.said(), time.Now() // what is read from now on may not be on disk
	if l.disk != nil {
		flag := 1 + int(j.Life)%2
		how += fmt.Sprintf(", flag %d", flag)
		if err := l.disk.cut(flag); err != nil {
			c.kill()
			return errors.Join(err, c.end(true))
		}
		time.Sleep(upTo(rng, 5*time.Millisecond)) // uploads go on, and should not say more than the disk
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
		return l.disk.again()
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
		l.complain("the last child: %s", c.stderr.String())
	}
	return nil
}

// finish removes the lot's directory, or writes into it what went wrong.
func (l *lot) finish() error {
	if !l.tally.bad() {
		return os.RemoveAll(l.dir)
	}
	text := fmt.Sprintf("%s, %v, seed %d: %v\n\n%s\n\n%s\n", l.name, l.durability, l.seed, l.tally,
		strings.Join(l.problems, "\n"), strings.Join(l.history, "\n"))
	return os.WriteFile(filepath.Join(l.dir, "report.txt"), []byte(text), 0o600)
}
