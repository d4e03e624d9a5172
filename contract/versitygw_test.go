package contract

import (
	"bufio"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"
)

// gateway is a running servers/versitygw.
type gateway struct {
	place
	owner  keys
	writer keys

	mu      sync.Mutex // held from a request to its answer
	process *process
	answers *bufio.Scanner
}

// gatewayKey is a line of the program's standard input.
type gatewayKey struct {
	ID, Secret string
	Token      string
	Expires    time.Time
	ARN        string
	RoleARN    string
}

// know adds a key to the gateway.
func (g *gateway) know(k gatewayKey) error {
	line, err := json.Marshal(k)
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, err := g.process.stdin.Write(append(line, '\n')); err != nil {
		return err
	}
	if !g.answers.Scan() || g.answers.Text() != k.ID {
		return fmt.Errorf("versitygw did not take a key: %q %v\n%s", g.answers.Text(), g.answers.Err(), g.process.log.String())
	}
	return nil
}

var gateways = eachScheme(startVersitygw)

const writerARN = userARN + "writer"

func startVersitygw(scheme string) (*gateway, error) {
	path, err := buildVersitygw()
	if err != nil {
		return nil, err
	}
	return launch(scheme, func(at place) (*gateway, error) {
		g := &gateway{
			place:  at,
			owner:  keys{id: "AKIAOWNER00000000000", secret: rand.Text()},
			writer: keys{id: "AKIAWRITER0000000000", secret: rand.Text()},
		}
		args := []string{"-address", at.address, "-dir", at.dir, "-region", region, "-access", g.owner.id, "-secret", g.owner.secret}
		if scheme == "https" {
			args = append(args, "-cert", at.id.cert, "-key", at.id.key)
		}
		if g.process, err = at.serve("/health", "versitygw", path, nil, args...); err != nil {
			return nil, err
		}
		g.answers = bufio.NewScanner(g.process.stdout)
		if !g.answers.Scan() {
			return nil, fmt.Errorf("versitygw has ended: %v\n%s", g.answers.Err(), g.process.log.String())
		}
		return g, g.know(gatewayKey{ID: g.writer.id, Secret: g.writer.secret, ARN: writerARN})
	})
}

func openVersitygw(t *testing.T, scheme string) *site {
	t.Helper()
	g, err := gateways[scheme]()
	if err != nil {
		t.Fatal(err)
	}
	s := &site{
		column: versitygw, scheme: scheme,
		url: g.url, client: g.client,
		region: region,
		owner:  g.owner,
		writer: g.writer,
		kmsKey: "arn:aws:kms:eu-west-1:" + account + ":key/known",
		role:   roleARN + "sink",
	}
	s.addBucket = s.createNamed
	s.addUser = func(k keys, arn string) error { return g.know(gatewayKey{ID: k.id, Secret: k.secret, ARN: arn}) }
	s.allow = s.allowByBucket
	s.ofBuckets = true
	s.kmsBucket = s.createKMS
	s.bucket = s.create(t)
	s.session = func(t *testing.T, life time.Duration) keys {
		t.Helper()
		k := keys{id: "ASIA" + rand.Text()[:16], secret: rand.Text(), token: rand.Text()}
		if err := g.know(gatewayKey{
			ID: k.id, Secret: k.secret, Token: k.token,
			Expires: time.Now().Add(life),
			ARN:     "arn:aws:sts::" + account + ":assumed-role/sink/contract",
			RoleARN: s.role,
		}); err != nil {
			t.Fatal(err)
		}
		return k
	}
	s.relaySTS(t, g)
	p := mayPut(s.bucket, "allowed")
	p.Statement[0].Principal = map[string][]string{"AWS": {writerARN, s.role}}
	r := to(http.MethodPut, "", p.String()).with("policy", "")
	if a := s.do(t, r); a.status/100 != 2 {
		t.Fatalf("PutBucketPolicy: %s: %s", a, a.body)
	}
	return s
}
