// Package barrier prevents foreign code from ending the process or a goroutine of
// the sink: the AWS SDK, credential providers, transports, loggers, hooks.
package barrier

import (
	"fmt"
	"runtime/debug"
)

// Panic is the panic of a function that [Run] has called, or its call of
// runtime.Goexit, which t.FailNow makes in a test.
type Panic struct {
	Value string // "" after runtime.Goexit
	Stack string // of the function's goroutine
}

func (p *Panic) Error() string {
	if p.Value == "" {
		return "called runtime.Goexit"
	}
	return "panicked: " + p.Value
}

// Run calls f on a new goroutine and waits for it. It returns a [*Panic] if f
// panics or calls runtime.Goexit, and nil if f returns. runtime.Goexit ends only
// that goroutine. Run costs about a microsecond.
func Run(f func()) *Panic {
	ended := make(chan *Panic, 1)
	go func() {
		returned := false
		defer func() {
			if returned {
				ended <- nil
				return
			}
			p := &Panic{Stack: string(debug.Stack())}
			if v := recover(); v != nil {
				p.Value = fmt.Sprintf("%v", v) // survives an Error method that panics
			}
			ended <- p
		}()
		f()
		returned = true
	}()
	return <-ended
}
