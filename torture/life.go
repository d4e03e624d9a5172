package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"
)

// childVariable is an environment variable with which this program, or its test,
// runs as a child.
const childVariable = "S3SINK_TORTURE_CHILD"

// record is a record of a child, and the time at which the parent has read it.
type record struct {
	kind   byte
	source byte
	n      uint32
	at     time.Time
}

// life is one child process.
type life struct {
	cmd    *exec.Cmd
	stdin  io.Closer
	stderr lastBytes
	done   chan struct{} // closed when every record has been read

	mu      sync.Mutex
	records []record
	updated chan struct{} // closed and replaced with each record
}

func start(j *job) (*life, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	l := &life{cmd: exec.Command(self), done: make(chan struct{}), updated: make(chan struct{})}
	l.cmd.Env = []string{
		childVariable + "=1", "GOTRACEBACK=all",
		"AWS_EC2_METADATA_DISABLED=true", "AWS_CONFIG_FILE=" + os.DevNull, "AWS_SHARED_CREDENTIALS_FILE=" + os.DevNull,
	}
	l.cmd.Stderr = &l.stderr
	stdin, err := l.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := l.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := l.cmd.Start(); err != nil {
		return nil, err
	}
	l.stdin = stdin
	go l.read(stdout)
	return l, json.NewEncoder(stdin).Encode(j)
}

func (l *life) read(r io.Reader) {
	defer close(l.done)
	buf := make([]byte, 4096*recordLen)
	for have := 0; ; {
		n, err := r.Read(buf[have:])
		have += n
		now := time.Now()
		l.mu.Lock()
		whole := have - have%recordLen
		for b := buf[:whole]; len(b) > 0; b = b[recordLen:] {
			l.records = append(l.records, record{b[0], b[1], uint32(b[4]) | uint32(b[5])<<8 | uint32(b[6])<<16 | uint32(b[7])<<24, now})
		}
		close(l.updated)
		l.updated = make(chan struct{})
		l.mu.Unlock()
		have = copy(buf, buf[whole:have])
		if err != nil {
			return
		}
	}
}

// recordCount returns the number of records read so far.
func (l *life) recordCount() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.records)
}

// wait returns when that many records of a kind were read, when the child has
// ended, or at the deadline.
func (l *life) wait(kind byte, count int, deadline time.Time) {
	for {
		l.mu.Lock()
		seen, updated := 0, l.updated
		for _, r := range l.records {
			if r.kind == kind {
				seen++
			}
		}
		l.mu.Unlock()
		if seen >= count {
			return
		}
		select {
		case <-updated:
		case <-l.done:
			return
		case <-time.After(time.Until(deadline)):
			return
		}
	}
}

// kill kills the child. It does not wait for its end.
func (l *life) kill() { _ = l.cmd.Process.Kill() } // fails if the child has ended already

// end waits until the child has ended and all its records were read. It returns an
// error if the child has failed by itself.
func (l *life) end(killed bool) error {
	<-l.done
	err := l.cmd.Wait()
	_ = l.stdin.Close() // the child, its reader, has ended
	if l.cmd.ProcessState.Exited() && !l.cmd.ProcessState.Success() {
		return fmt.Errorf("the child ended by itself: %w", err)
	}
	if !killed && err != nil {
		return err
	}
	return nil
}

// lastBytes keeps the first and the last bytes that were written to it.
type lastBytes struct {
	mu          sync.Mutex
	first, last []byte
	damaged     bool
}

func (b *lastBytes) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.damaged = b.damaged || bytes.Contains(p, []byte("the spool is damaged"))
	if len(b.first) < 4096 {
		b.first = append(b.first, p...)
		return len(p), nil
	}
	b.last = append(b.last, p...)
	if len(b.last) > 8192 {
		b.last = append(b.last[:0], b.last[len(b.last)-4096:]...)
	}
	return len(p), nil
}

func (b *lastBytes) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(b.first) + string(b.last)
}
