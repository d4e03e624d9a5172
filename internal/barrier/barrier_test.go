package barrier_test

import (
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/s3sink/s3sink/internal/barrier"
)

// worse is an error that cannot be printed.
type worse struct{}

func (worse) Error() string { panic("again") }

func explode(v any) { panic(v) }

func TestRun_FunctionThatReturns(t *testing.T) {
	t.Parallel()
	called := false
	if err := barrier.Run(func() { called = true }); err != nil || !called {
		t.Errorf("%v, called %t", err, called)
	}
}

func TestRun_FunctionThatDoesNot(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		f           func()
		text, stack string
	}{
		"panic":            {func() { explode("boom") }, "panicked: boom", "barrier_test.explode"},
		"error":            {func() { explode(errors.New("boom")) }, "panicked: boom", "barrier_test.explode"},
		"nil":              {func() { explode(nil) }, "panicked: panic called with nil", "barrier_test.explode"},
		"nil pointer":      {func() { _ = *(*int)(nil) }, "panicked: runtime error: invalid memory address", "barrier_test.TestRun"},
		"no text":          {func() { explode(worse{}) }, "panicked: %!v(PANIC=Error method: again)", "barrier_test.explode"},
		"runtime.Goexit":   {runtime.Goexit, "called runtime.Goexit", "runtime.Goexit"},
		"Goexit, deferred": {func() { defer runtime.Goexit(); explode("boom") }, "called runtime.Goexit", "runtime.Goexit"},
	} {
		err := barrier.Run(tt.f)
		if err == nil || !strings.HasPrefix(err.Error(), tt.text) || !strings.Contains(err.Stack, tt.stack) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func BenchmarkRun(b *testing.B) {
	for b.Loop() {
		barrier.Run(func() {})
	}
}
