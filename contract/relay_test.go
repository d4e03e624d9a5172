package contract

import (
	"bytes"
	"encoding/xml"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"testing"
	"time"

	"github.com/s3sink/s3sink/s3sinktest"
)

// relaySTS adds an STS to a gateway. s3sinktest answers AssumeRole, and the gateway
// gets the keys of every session before the client does.
func (s *site) relaySTS(t *testing.T, g *gateway) {
	t.Helper()
	sts := s3sinktest.NewServer()
	t.Cleanup(sts.Close)
	s.externalID = external
	s.caller = keys{id: "AKIACALLER0000000000", secret: "caller-secret"}
	sts.AddUser(s3sinktest.User{ARN: userARN + "caller", AccessKeyID: s.caller.id, SecretAccessKey: s.caller.secret})
	sts.AddRole(s3sinktest.Role{ARN: s.role, TrustedPrincipals: []string{userARN + "caller"}, ExternalID: external})
	target, err := url.Parse(sts.URL())
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // the signature covers it
		},
		ModifyResponse: func(resp *http.Response) error { return s.introduce(g, resp) },
		Transport:      sts.HTTPClient().Transport,
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: proxy, ReadHeaderTimeout: time.Minute}
	served := make(chan struct{})
	t.Cleanup(func() {
		server.Close()
		<-served
	})
	id, err := newIdentity()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(served)
		if s.scheme == "https" {
			server.ServeTLS(listener, id.cert, id.key)
		} else {
			server.Serve(listener)
		}
	}()
	s.sinkSTS = s.scheme + "://" + listener.Addr().String()
}

// introduce adds the session in an answer of AssumeRole to the gateway.
func (s *site) introduce(g *gateway, resp *http.Response) error {
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		return err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	if resp.StatusCode != http.StatusOK {
		return nil
	}
	var shape struct {
		ID      string    `xml:"AssumeRoleResult>Credentials>AccessKeyId"`
		Secret  string    `xml:"AssumeRoleResult>Credentials>SecretAccessKey"`
		Token   string    `xml:"AssumeRoleResult>Credentials>SessionToken"`
		Expires time.Time `xml:"AssumeRoleResult>Credentials>Expiration"`
		ARN     string    `xml:"AssumeRoleResult>AssumedRoleUser>Arn"`
	}
	if err := xml.Unmarshal(body, &shape); err != nil {
		return err
	}
	return g.know(gatewayKey{
		ID: shape.ID, Secret: shape.Secret, Token: shape.Token, Expires: shape.Expires,
		ARN: shape.ARN, RoleARN: s.role,
	})
}
