package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"math/rand/v2"

	"github.com/s3sink/s3sink"
)

const (
	sampleCalls  = 1000
	githubSource = "github"
)

// githubEvents are events of GitHub's public timeline, one a line.
//
//go:embed samples/github-events.ndjson
var githubEvents []byte

// trackSamples shows two kinds of events. Calls of the Segment Spec go to
// source; the sink checks them and adds fields such as receivedAt. JSON of any
// other shape goes to githubSource; the sink checks its syntax and stores it
// unchanged.
func (s *shipment) trackSamples(ctx context.Context, sink *s3sink.Sink, source string) error {
	calls := s.ledger.open(source, "messageId", messageID)
	for event := range segmentCalls(sampleCalls) {
		if err := sink.TrackContext(ctx, event); err != nil {
			return err
		}
		calls.in.add([]byte(event.MessageID))
		s.events.Add(1)
	}

	github, err := sink.Source(githubSource)
	if err != nil {
		return err
	}
	raw := s.ledger.open(githubSource, "the whole line", wholeLine)
	for line := range bytes.Lines(githubEvents) {
		line = bytes.TrimSpace(line)
		if err := github.TrackContext(ctx, json.RawMessage(line)); err != nil {
			return err
		}
		raw.in.add(line)
		s.events.Add(1)
	}
	return nil
}

// messageID returns the message id of a Segment call. The sink writes the line
// of a call, so the check compares ids instead of lines.
func messageID(line []byte) []byte {
	var call struct{ MessageID string }
	if json.Unmarshal(line, &call) != nil {
		return nil
	}
	return []byte(call.MessageID)
}

// segmentCalls yields n calls from visitors of a shop and its app. They are the
// same in every run. The first six are one of each type.
func segmentCalls(n int) func(yield func(s3sink.Event) bool) {
	return func(yield func(s3sink.Event) bool) {
		shop := &shop{rand.New(rand.NewPCG(2013, 1))}
		for i := range n {
			call := shop.call(i)
			call.MessageID = shop.uuid()
			if !yield(call) {
				return
			}
		}
	}
}

// shop makes the calls with its own random numbers.
type shop struct{ *rand.Rand }

// call returns the i-th call. After the first ones its type is random; most are
// track or page calls.
func (s *shop) call(i int) s3sink.Event {
	makers := []func(visitor) s3sink.Event{s.identify, s.group, s.track, s.page, s.screen, s.alias, s.track, s.track, s.page}
	maker := i
	if i >= len(makers) {
		maker = s.IntN(len(makers))
	}
	return makers[maker](visitor(s.IntN(200)))
}

// visitor is the number of a visitor. All data about a visitor is derived from
// it, so that the calls of one visitor are consistent.
type visitor int

func (v visitor) userID() string { return fmt.Sprintf("user-%04d", int(v)) }
func (v visitor) anonymousID() string {
	return fmt.Sprintf("5f0c%04x-1d6e-4c39-9f0b-7a3e%08x", int(v)*7, int(v)*7919)
}
func (v visitor) groupID() string { return fmt.Sprintf("company-%02d", int(v)%20) }
func (v visitor) ip() string      { return fmt.Sprintf("203.0.113.%d", int(v)%256) }
func (v visitor) name() (first, last string) {
	return firstNames[int(v)%len(firstNames)], lastNames[int(v)/3%len(lastNames)]
}

var (
	firstNames = []string{"Ada", "Grace", "Alan", "Barbara", "Edsger", "Frances", "Niklaus", "Radia", "José", "Яна", "美咲"}
	lastNames  = []string{"Lovelace", "Hopper", "Turing", "Liskov", "Dijkstra", "Allen", "Wirth", "Perlman", "Núñez", "O'Neil"}
	plans      = []string{"free", "team", "enterprise"}
	industries = []string{"Retail", "Logistics", "Software", "Food & Drink"}
	locales    = []string{"en-US", "de-DE", "fr-FR", "pt-BR", "ja-JP"}
	actions    = []string{"Product Viewed", "Product Added", "Checkout Started", "Order Completed", "Coupon Applied"}
	pages      = []string{"Home", "Product", "Cart", "Checkout", "Help"}
	screens    = []string{"Welcome", "Scanner", "Orders", "Settings"}
	products   = []struct {
		sku, name, category string
		price               float64
	}{
		{"G-32", "Monopoly: 3rd Edition", "Games", 18.99},
		{"G-41", "Uno Card Game", "Games", 7.50},
		{"B-07", "The Go Programming Language", "Books", 34.00},
		{"K-12", "Kettle \"Steam\" 1.7 l", "Kitchen", 45.90},
		{"T-03", "Trail shoes <42>", "Sports", 119.00},
	}
)

func (s *shop) identify(v visitor) s3sink.Event {
	first, last := v.name()
	e := web(s3sink.TypeIdentify, v)
	e.Traits = map[string]any{
		"firstName": first,
		"lastName":  last,
		"email":     v.userID() + "@example.com",
		"plan":      plans[int(v)%len(plans)],
		"logins":    s.IntN(500),
		"address":   map[string]any{"city": "Berlin", "country": "DE"},
	}
	return e
}

func (s *shop) group(v visitor) s3sink.Event {
	e := web(s3sink.TypeGroup, v)
	e.GroupID = v.groupID()
	e.Traits = map[string]any{
		"name":      "Company " + v.groupID()[len("company-"):],
		"industry":  industries[int(v)%len(industries)],
		"employees": 10 + s.IntN(5000),
		"plan":      plans[int(v)%len(plans)],
	}
	return e
}

func (s *shop) track(v visitor) s3sink.Event {
	e := web(s3sink.TypeTrack, v)
	e.Event = actions[s.IntN(len(actions))]
	product, quantity := products[s.IntN(len(products))], 1+s.IntN(4)
	e.Properties = map[string]any{
		"order_id": fmt.Sprintf("%08x", s.Uint32()),
		"currency": "EUR",
		"revenue":  product.price * float64(quantity),
		"products": []any{map[string]any{
			"sku": product.sku, "name": product.name, "category": product.category,
			"price": product.price, "quantity": quantity,
		}},
	}
	// The sink stores this field and ignores it.
	e.Integrations = map[string]any{"All": true, "Mixpanel": false}
	return e
}

func (s *shop) page(v visitor) s3sink.Event {
	e := web(s3sink.TypePage, v)
	if s.IntN(3) == 0 {
		e.UserID = "" // a visitor who has not signed in
	}
	e.Name = pages[s.IntN(len(pages))]
	e.Category = "Shop"
	e.Properties = map[string]any{
		"title":    e.Name + " – Example Shop",
		"url":      "https://shop.example.com/" + e.Name,
		"path":     "/" + e.Name,
		"referrer": "https://search.example.net/?q=" + e.Name,
	}
	return e
}

func (s *shop) screen(v visitor) s3sink.Event {
	e := app(s3sink.TypeScreen, v)
	e.Name = screens[s.IntN(len(screens))]
	e.Properties = map[string]any{"orientation": "portrait", "loaded_ms": 20 + s.IntN(400)}
	return e
}

func (s *shop) alias(v visitor) s3sink.Event {
	e := app(s3sink.TypeAlias, v)
	e.PreviousID = v.anonymousID()
	e.AnonymousID = ""
	return e
}

// web returns an event from a browser.
func web(t s3sink.EventType, v visitor) s3sink.Event {
	return s3sink.Event{
		Type: t, UserID: v.userID(), AnonymousID: v.anonymousID(), Channel: "browser",
		Context: map[string]any{
			"ip":        v.ip(),
			"locale":    locales[int(v)%len(locales)],
			"library":   map[string]any{"name": "analytics.js", "version": "2.11.1"},
			"userAgent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
			"timezone":  "Europe/Berlin",
		},
	}
}

// app returns an event from a mobile app.
func app(t s3sink.EventType, v visitor) s3sink.Event {
	return s3sink.Event{
		Type: t, UserID: v.userID(), AnonymousID: v.anonymousID(), Channel: "mobile",
		Context: map[string]any{
			"ip":      v.ip(),
			"app":     map[string]any{"name": "Example Shop", "version": "5.4.1", "build": "541"},
			"device":  map[string]any{"manufacturer": "Google", "model": "Pixel 8", "type": "android"},
			"os":      map[string]any{"name": "Android", "version": "14"},
			"network": map[string]any{"cellular": int(v)%2 == 0, "wifi": int(v)%2 == 1},
			"screen":  map[string]any{"width": 412, "height": 915, "density": 2.625},
		},
	}
}

// uuid returns a version 4 UUID from the shop's random numbers.
func (s *shop) uuid() string {
	a, b := s.Uint64(), s.Uint64()
	return fmt.Sprintf("%08x-%04x-4%03x-%04x-%012x", a>>32, a>>16&0xffff, a&0xfff, 0x8000|b>>48&0x3fff, b&0xffff_ffff_ffff)
}
