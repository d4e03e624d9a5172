package s3sinktest

import (
	"cmp"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"time"
	"unicode/utf8"
)

const (
	stsVersion     = "2011-06-15"
	minSession     = 15 * time.Minute
	maxSession     = 12 * time.Hour
	maxChained     = time.Hour // when a session assumes another role
	defaultSession = time.Hour
	maxPolicy      = 2048
	minExternalID  = 2
	maxExternalID  = 1224
)

var (
	roleARN     = regexp.MustCompile(`^arn:aws(-[a-z]+)*:iam::[0-9]{12}:role/[\w+=,.@/-]+$`)
	sessionName = regexp.MustCompile(`^[\w+=,.@-]{2,64}$`)
	externalID  = regexp.MustCompile(`^[\w+=,.@:/-]*$`)
)

type assumeRoleXML struct {
	XMLName          xml.Name       `xml:"https://sts.amazonaws.com/doc/2011-06-15/ AssumeRoleResponse"`
	AccessKeyID      string         `xml:"AssumeRoleResult>Credentials>AccessKeyId"`
	SecretAccessKey  string         `xml:"AssumeRoleResult>Credentials>SecretAccessKey"`
	SessionToken     string         `xml:"AssumeRoleResult>Credentials>SessionToken"`
	Expiration       string         `xml:"AssumeRoleResult>Credentials>Expiration"`
	AssumedRoleID    string         `xml:"AssumeRoleResult>AssumedRoleUser>AssumedRoleId"`
	ARN              string         `xml:"AssumeRoleResult>AssumedRoleUser>Arn"`
	ResponseMetadata stsMetadataXML `xml:"ResponseMetadata"`
}

type callerXML struct {
	XMLName          xml.Name       `xml:"https://sts.amazonaws.com/doc/2011-06-15/ GetCallerIdentityResponse"`
	ARN              string         `xml:"GetCallerIdentityResult>Arn"`
	UserID           string         `xml:"GetCallerIdentityResult>UserId"`
	Account          string         `xml:"GetCallerIdentityResult>Account"`
	ResponseMetadata stsMetadataXML `xml:"ResponseMetadata"`
}

type stsMetadataXML struct {
	RequestID string `xml:"RequestId"`
}

func (s *Server) handleSTS(c *call) answer {
	if c.form.Get("Version") == stsVersion {
		switch c.operation {
		case "AssumeRole":
			return s.assumeRole(c)
		case "GetCallerIdentity":
			return callerIdentity(c)
		}
	}
	return c.refuse(&apiError{status: 400, code: "InvalidAction",
		message: fmt.Sprintf("Could not find operation %s for version %s", c.operation,
			cmp.Or(c.form.Get("Version"), "NO_VERSION_SPECIFIED"))})
}

func callerIdentity(c *call) answer {
	a := c.reply(http.StatusOK)
	return a.withXML("text/xml", callerXML{
		ARN:              c.caller.arn,
		UserID:           c.caller.id,
		Account:          account(c.caller.arn),
		ResponseMetadata: a.stsMetadata(),
	})
}

func (a answer) stsMetadata() stsMetadataXML {
	return stsMetadataXML{RequestID: a.header.Get("X-Amzn-Requestid")}
}

func (s *Server) assumeRole(c *call) answer {
	if err := checkAssumeRole(c.form); err != nil {
		return c.refuse(err)
	}
	session, err := sessionPolicy(c.form)
	if err != nil {
		return c.refuse(err)
	}
	role, err := s.assumable(c)
	if err != nil {
		return c.refuse(err)
	}
	d, err := sessionDuration(c, role)
	if err != nil {
		return c.refuse(err)
	}
	accessKeyID, cred := s.newSession(role, c.form.Get("RoleSessionName"), d, session)
	a := c.reply(http.StatusOK)
	return a.withXML("text/xml", assumeRoleXML{
		AccessKeyID:      accessKeyID,
		SecretAccessKey:  cred.secret,
		SessionToken:     cred.token,
		Expiration:       cred.expires.UTC().Format(time.RFC3339),
		AssumedRoleID:    cred.id,
		ARN:              cred.arn,
		ResponseMetadata: a.stsMetadata(),
	})
}

// checkAssumeRole looks at the parameters by themselves.
func checkAssumeRole(form url.Values) *apiError {
	if arn := form.Get("RoleArn"); len(arn) < 20 || len(arn) > 2048 || !roleARN.MatchString(arn) {
		return validationError("Request ARN is invalid")
	}
	if !sessionName.MatchString(form.Get("RoleSessionName")) {
		return invalidParameter("roleSessionName", form.Get("RoleSessionName"), `must satisfy regular expression pattern: [\w+=,.@-]{2,64}`)
	}
	if id := form.Get("ExternalId"); form.Has("ExternalId") {
		if len(id) < minExternalID || len(id) > maxExternalID {
			return invalidParameter("externalId", id, "must have length between 2 and 1224")
		}
		if !externalID.MatchString(id) {
			return invalidParameter("externalId", id, `must satisfy regular expression pattern: [\w+=,.@:\/-]*`)
		}
	}
	if form.Has("DurationSeconds") {
		seconds, err := strconv.Atoi(form.Get("DurationSeconds"))
		if err != nil || seconds < int(minSession.Seconds()) || seconds > int(maxSession.Seconds()) {
			return invalidParameter("durationSeconds", form.Get("DurationSeconds"), "must have value between 900 and 43200")
		}
	}
	return nil
}

// sessionPolicy is nil when the request has none. What AWS may understand and
// this package does not is refused as such, with 501.
func sessionPolicy(form url.Values) (*policy, *apiError) {
	text := form.Get("Policy")
	if !form.Has("Policy") {
		return nil, nil
	}
	if utf8.RuneCountInString(text) > maxPolicy {
		return nil, invalidParameter("policy", text, "must have length less than or equal to 2048")
	}
	p, err := parsePolicy(text)
	var unknown *unsupported
	switch {
	case errors.As(err, &unknown):
		return nil, notImplemented(err.Error())
	case err != nil:
		return nil, &apiError{status: 400, code: "MalformedPolicyDocument", message: err.Error()}
	}
	return p, nil
}

// assumable returns the role, if the caller's policies let it be assumed, it
// exists, and it trusts the caller. A refusal does not tell which of the last
// two failed.
func (s *Server) assumable(c *call) (role, *apiError) {
	arn, id := c.form.Get("RoleArn"), c.form.Get("ExternalId")
	s.mu.Lock()
	r := s.roles[arn] // the zero role trusts no principal
	s.mu.Unlock()
	q := question{who: c.caller, action: actionAssume, resource: arn, context: map[string]string{}}
	if c.form.Has("ExternalId") {
		q.context["sts:externalid"] = id
	}
	trust := r.trusts(c.caller, id)
	// A silent trust policy is replaced by one that delegates, so that the answer
	// follows from the caller's own policies.
	if reason := s.decide(q, max(trust, delegates), account(arn)); reason != "" {
		return role{}, q.denial(false, reason)
	}
	if trust == silent {
		return role{}, q.denial(false, "")
	}
	return r, nil
}

func sessionDuration(c *call, role role) (time.Duration, *apiError) {
	chained := c.caller.role != ""
	if !c.form.Has("DurationSeconds") {
		return min(defaultSession, role.MaxSession), nil
	}
	seconds, _ := strconv.Atoi(c.form.Get("DurationSeconds")) // has been checked
	d := time.Duration(seconds) * time.Second
	switch {
	case chained && d > maxChained:
		return 0, validationError("The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining.")
	case d > role.MaxSession:
		return 0, validationError("The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
	}
	return d, nil
}

func validationError(message string) *apiError {
	return &apiError{status: 400, code: "ValidationError", message: message}
}

func invalidParameter(name, value, constraint string) *apiError {
	return validationError(fmt.Sprintf("1 validation error detected: Value '%s' at '%s' failed to satisfy constraint: Member %s",
		value, name, constraint))
}
