package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/s3sink/s3sink/internal/terminal"
)

// console prints messages to standard error. On a terminal it also keeps a
// progress line below the messages.
type console struct {
	terminal bool

	mu    sync.Mutex
	w     io.Writer
	shown bool // the progress line is on the screen
}

func newConsole(stderr io.Writer) *console {
	return &console{w: stderr, terminal: terminal.Is(stderr)}
}

const eraseLine = "\r\x1b[K"

// Write prints a message above the progress line.
func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.eraseLocked()
	return c.w.Write(p)
}

func (c *console) eraseLocked() {
	if c.shown {
		_, _ = io.WriteString(c.w, eraseLine) // progress only
		c.shown = false
	}
}

// watch shows the text that line returns as the progress line, and updates it
// five times a second until stop is called. Without a terminal it does nothing.
func (c *console) watch(line func() string) (stop func()) {
	if !c.terminal {
		return func() {}
	}
	done := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				c.show(line())
			case <-done:
				return
			}
		}
	})
	return func() {
		close(done)
		running.Wait()
		c.mu.Lock()
		defer c.mu.Unlock()
		c.eraseLocked()
	}
}

// show replaces the progress line.
func (c *console) show(line string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Fprint(c.w, eraseLine, line)
	c.shown = true
}
