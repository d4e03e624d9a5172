package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/s3sink/s3sink/examples/internal/terminal"
)

// console is standard error: messages and, if it is a terminal, a last line
// that says how far the program is. In a pipe or a file there is no such line.
type console struct {
	terminal bool

	mu    sync.Mutex
	w     io.Writer
	shown bool // the last line
}

func newConsole(stderr io.Writer) *console {
	return &console{w: stderr, terminal: terminal.Is(stderr)}
}

const eraseLine = "\r\x1b[K"

// Write prints a message above the last line.
func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.eraseLocked()
	return c.w.Write(p)
}

func (c *console) eraseLocked() {
	if c.shown {
		io.WriteString(c.w, eraseLine)
		c.shown = false
	}
}

// watch shows what line returns, five times a second, until stop is called.
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

func (c *console) show(line string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Fprint(c.w, eraseLine, line)
	c.shown = true
}
