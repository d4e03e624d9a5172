package budget_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/s3sink/s3sink/internal/budget"
)

func TestTryTake(t *testing.T) {
	t.Parallel()
	b := budget.New(10, func() {})
	if !b.TryTake(10) || b.TryTake(1) {
		t.Fatal("the bound does not hold")
	}
	b.Give(4)
	if b.TryTake(5) || !b.TryTake(4) {
		t.Error("what was given back is not what can be taken")
	}
	if now, peak := b.Used(); now != 10 || peak != 10 {
		t.Errorf("used %d, peak %d, want 10 and 10", now, peak)
	}
}

func TestTakeServesInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(10, func() {})
		b.TryTake(10)
		order := make(chan int64, 2)
		for _, n := range []int64{8, 2} {
			go func() {
				if err := b.Take(t.Context(), n); err != nil {
					t.Error(err)
				}
				order <- n
			}()
			synctest.Wait()
		}
		b.Give(2)
		synctest.Wait()
		if len(order) != 0 {
			t.Fatal("the small one overtook the large one, which could then wait for ever")
		}
		if b.TryTake(1) {
			t.Fatal("one that does not wait overtook those that do")
		}
		b.Give(8)
		if first, second := <-order, <-order; first+second != 10 {
			t.Errorf("served %d and %d", first, second)
		}
	})
}

func TestTakeEndsWithContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(10, func() {})
		b.TryTake(9)
		cause := errors.New("enough")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, cause)
		defer cancel()
		behind := make(chan error, 1)
		go func() {
			time.Sleep(time.Second)
			behind <- b.Take(t.Context(), 1)
		}()
		if err := b.Take(ctx, 5); !errors.Is(err, cause) {
			t.Errorf("got %v, want the context's cause", err)
		}
		if err := <-behind; err != nil {
			t.Errorf("one that asks for less and waited behind: %v", err)
		}
		if now, _ := b.Used(); now != 10 {
			t.Errorf("%d used, want 10: giving up takes nothing", now)
		}
	})
}

func TestCloseEndsWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		waits := 0
		b := budget.New(10, func() { waits++ })
		b.TryTake(10)
		ended := make(chan error, 1)
		go func() { ended <- b.Take(t.Context(), 7) }()
		synctest.Wait()
		if waits != 1 || b.Wanted() != 7 {
			t.Errorf("told %d times, %d wanted, want 1 and 7", waits, b.Wanted())
		}
		b.Close()
		if err := <-ended; !errors.Is(err, budget.ErrClosed) {
			t.Errorf("got %v, want ErrClosed", err)
		}
		if err := b.Take(t.Context(), 1); !errors.Is(err, budget.ErrClosed) {
			t.Errorf("a new wait: %v, want ErrClosed", err)
		}
		if b.Wanted() != 0 {
			t.Errorf("%d wanted after Close", b.Wanted())
		}
	})
}
