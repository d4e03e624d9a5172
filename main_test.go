package s3sink_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain applies to all tests of the root: they connect only to this machine,
// do not see its AWS account, and must not leak goroutines. Tests against real
// servers are in modules of their own.
func TestMain(m *testing.M) {
	forgetAccount()
	stayLocal()
	code := m.Run()
	if code == 0 { // a failed test may leak goroutines
		if left := waitForGoroutines(5 * time.Second); left != "" {
			fmt.Fprintf(os.Stderr, "FAIL: goroutines outlived the tests\n\n%s\n", left)
			code = 1
		}
	}
	os.Exit(code)
}

// forgetAccount removes the AWS and RudderStack settings of this machine from
// the environment, and its proxies.
func forgetAccount() {
	for _, pair := range os.Environ() {
		name, _, _ := strings.Cut(pair, "=")
		switch upper := strings.ToUpper(name); {
		case strings.HasPrefix(upper, "AWS_"), strings.HasPrefix(upper, "RUDDER_"),
			upper == "HTTP_PROXY", upper == "HTTPS_PROXY":
			os.Unsetenv(name)
		}
	}
	os.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	os.Setenv("AWS_CONFIG_FILE", os.DevNull)
	os.Setenv("AWS_SHARED_CREDENTIALS_FILE", os.DevNull)
}

// stayLocal restricts connections to this machine. The default transport dials
// only loopback addresses. For transports with their own dialer, as the SDK's,
// only names in /etc/hosts are resolved.
func stayLocal() {
	dialer := &net.Dialer{
		Control: func(_, address string, _ syscall.RawConn) error {
			if to, err := netip.ParseAddrPort(address); err != nil || !to.Addr().IsLoopback() {
				return fmt.Errorf("a test dialled %s: tests stay on this machine", address)
			}
			return nil
		},
	}
	http.DefaultTransport.(*http.Transport).DialContext = dialer.DialContext
	net.DefaultResolver = &net.Resolver{
		PreferGo: true,
		Dial: func(context.Context, string, string) (net.Conn, error) {
			return nil, errors.New("a test asked the DNS: tests stay on this machine")
		},
	}
}

// waitForGoroutines returns the stacks of goroutines that this module started
// or runs in, once they had the time to end.
func waitForGoroutines(patience time.Duration) string {
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		left := goroutines()
		if left == "" || time.Now().After(deadline) {
			return left
		}
	}
}

func goroutines() string {
	stacks := make([]byte, 1<<20)
	for {
		n := runtime.Stack(stacks, true)
		if n < len(stacks) {
			stacks = stacks[:n]
			break
		}
		stacks = make([]byte, 2*len(stacks))
	}
	var left []string
	for _, stack := range strings.Split(string(stacks), "\n\n")[1:] { // the first is the current goroutine
		if strings.Contains(stack, module) {
			left = append(left, stack)
		}
	}
	return strings.Join(left, "\n\n")
}
