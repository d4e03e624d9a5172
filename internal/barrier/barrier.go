// Package barrier keeps code of others from ending the process, or a goroutine
// of the sink: the AWS SDK, credential providers, transports, loggers, hooks.
package barrier

import (
	"fmt"
	"runtime/debug"
)

// Panic is the panic of a function that [Run] has called, or its call of
// runtime.Goexit, as t.FailNow of a test makes it.
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

// Run calls f on a goroutine of its own and waits for it. It returns a [*Panic]
// if f panics or calls runtime.Goexit, and nil if f returns. The goroutine is
// what makes runtime.Goexit harmless: it ends that goroutine alone. It costs
// about a microsecond.
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
