// The relay's protocol (the head of examples/relay/relay.h) written plainly: a goroutine for each connection, which reads lines;
// maps and the active connections under one mutex; a Write for each line.
//
//	go build -o bench/relay bench/relay.go && bench/relay -port 8000
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode/utf8"
)

const (
	maxX       = 65536
	maxLine    = len("message ") + 2*maxX
	maxWaiting = 1024
	linger     = 20 * time.Second
)

type client struct {
	net.Conn
	at   int               // its place among the active ones
	left bool              // it is none; its own goroutine's
	sent map[*message]bool // what it waits for
	held map[*message]bool // what was forwarded to it
}

// A message is there as long as its sender waits. The one to whom it was forwarded may be gone.
type message struct {
	x        string
	from, to *client
}

type counts struct {
	Active      int   `json:"active"`
	Outstanding int   `json:"outstanding"`
	Buffered    int   `json:"buffered"`
	Memory      int   `json:"memory"`
	CPU         int64 `json:"cpu_us"`
	Messages    int   `json:"messages"`
	Forwards    int   `json:"forwards"`
	Reforwards  int   `json:"reforwards"`
	Oks         int   `json:"oks"`
	Ignored     int   `json:"ignored"`
	Errors      int   `json:"errors"`
	Lost        int   `json:"lost"`
	Opened      int   `json:"opened"`
	Peak        int   `json:"peak"`
}

type server struct {
	reforward bool

	mu       sync.Mutex
	random   *rand.Rand
	active   []*client
	messages map[string][]*message // by their X
	counts   counts
}

func (c *client) send(word, text string) {
	line := make([]byte, 0, len(word)+len(" ")+len(text)+len("\n"))
	line = append(line, word...)
	line = append(line, ' ')
	line = append(line, text...)
	line = append(line, '\n')
	c.Write(line) // if it can't, c's own goroutine reads of it
}

func (s *server) enter(c *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.at = len(s.active)
	s.active = append(s.active, c)
	s.counts.Opened++
	if len(s.active) > s.counts.Peak {
		s.counts.Peak = len(s.active)
	}
}

// pass chooses who is to get m, or nil if nobody is there; mu is held.
func (s *server) pass(m *message) *client {
	if len(s.active) == 0 {
		return nil
	}
	m.to = s.active[s.random.Intn(len(s.active))]
	m.to.held[m] = true
	s.counts.Forwards++
	return m.to
}

func (s *server) message(c *client, x string) (trouble string) {
	s.mu.Lock()
	if len(c.sent) == maxWaiting {
		s.mu.Unlock()
		return "1024 messages of yours wait for an ok; send more when some have come"
	}
	m := &message{x: x, from: c}
	s.messages[x] = append(s.messages[x], m)
	c.sent[m] = true
	s.counts.Messages++
	s.counts.Outstanding++
	to := s.pass(m)
	s.mu.Unlock()
	to.send("message", x) // c itself is active, so there is somebody
	return ""
}

// answered takes all messages of x, if c holds one of them; mu is held.
func (s *server) answered(c *client, x string) []*message {
	all := s.messages[x]
	for _, m := range all {
		if m.to == c {
			delete(s.messages, x)
			return all
		}
	}
	return nil
}

func (s *server) ok(c *client, x string) {
	s.mu.Lock()
	all := s.answered(c, x)
	if all == nil {
		s.counts.Ignored++
		s.mu.Unlock()
		return
	}
	s.counts.Oks++
	s.counts.Outstanding -= len(all)
	for _, m := range all {
		delete(m.from.sent, m)
		if m.to != nil {
			delete(m.to.held, m)
		}
	}
	s.mu.Unlock()
	for _, m := range all {
		m.from.send("ok", x)
	}
}

// forget takes m out of those with its X; mu is held.
func (s *server) forget(m *message) {
	s.counts.Outstanding--
	all := s.messages[m.x]
	for i := range all {
		if all[i] == m {
			all[i] = all[len(all)-1]
			all = all[:len(all)-1]
			break
		}
	}
	if len(all) == 0 {
		delete(s.messages, m.x)
	} else {
		s.messages[m.x] = all
	}
	if m.to != nil {
		delete(m.to.held, m)
	}
}

// leave takes c out of the active ones. What it sent goes with it, what it held goes to others.
func (s *server) leave(c *client) {
	if c.left {
		return
	}
	c.left = true
	s.mu.Lock()
	last := s.active[len(s.active)-1]
	s.active[c.at], last.at = last, c.at
	s.active[len(s.active)-1] = nil
	s.active = s.active[:len(s.active)-1]
	for m := range c.sent {
		s.forget(m)
	}
	type passed struct {
		to *client
		x  string
	}
	var again []passed
	for m := range c.held {
		m.to = nil
		if !s.reforward {
			continue
		}
		if to := s.pass(m); to != nil {
			s.counts.Reforwards++
			again = append(again, passed{to, m.x})
		}
	}
	c.sent, c.held = nil, nil
	s.mu.Unlock()
	for _, p := range again {
		p.to.send("message", p.x)
	}
}

func (s *server) stats(c *client) {
	var usage syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	var size, resident int
	if statm, err := os.ReadFile("/proc/self/statm"); err == nil {
		fmt.Sscan(string(statm), &size, &resident)
	}
	s.leave(c)
	s.mu.Lock()
	counts := s.counts
	counts.Active = len(s.active)
	s.mu.Unlock()
	counts.Memory = resident * os.Getpagesize()
	counts.CPU = (usage.Utime.Nano() + usage.Stime.Nano()) / 1000
	text, err := json.Marshal(counts)
	if err != nil {
		log.Fatal(err)
	}
	c.send("stats", string(text))
}

func (s *server) refuse(c *client, why string) {
	s.mu.Lock()
	s.counts.Errors++
	s.mu.Unlock()
	c.send("error", why)
}

// trouble says what is wrong with an X as it is in a line.
func trouble(x string) string {
	n := 0
	for i := 0; i < len(x); i++ {
		if x[i] == '\r' {
			return "a raw carriage return is in the line; write it as \\r"
		}
		if x[i] == '\\' {
			i++
			if i == len(x) || x[i] != 'n' && x[i] != 'r' && x[i] != '\\' {
				return "a backslash is there without n, r or a backslash behind it; write it twice"
			}
		}
		n++
	}
	switch {
	case n > maxX:
		return "X is longer than 65536 bytes; send less"
	case !utf8.ValidString(x):
		return "the line is not UTF-8; send text"
	}
	return ""
}

// line does what one asks for, or returns what is wrong with it.
func (s *server) line(c *client, line string) string {
	word, x, hasX := strings.Cut(line, " ")
	switch {
	case line == "stats":
		s.stats(c)
		return ""
	case word != "message" && word != "ok":
		return "no such word; send message X, ok X or stats"
	case !hasX:
		return "a space and an X belong behind that word"
	case c.left:
		return "this connection asked for stats; use another one"
	}
	if why := trouble(x); why != "" {
		return why
	}
	if word == "message" {
		return s.message(c, x)
	}
	s.ok(c, x)
	return ""
}

// whole splits as bufio.ScanLines does, but what has no line feed is no line.
func whole(data []byte, atEOF bool) (int, []byte, error) {
	i := bytes.IndexByte(data, '\n')
	if i < 0 {
		return 0, nil, nil
	}
	line := bytes.TrimSuffix(data[:i], []byte("\r"))
	if len(line) > maxLine {
		return 0, nil, bufio.ErrTooLong
	}
	return i + 1, line, nil
}

func (s *server) serve(conn net.Conn) {
	defer conn.Close()
	c := &client{Conn: conn, sent: make(map[*message]bool), held: make(map[*message]bool)}
	s.enter(c)
	defer s.leave(c)
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, maxLine+len("\r\n"))
	lines.Split(whole)
	for lines.Scan() {
		if why := s.line(c, lines.Text()); why != "" {
			s.refuse(c, why)
		}
	}
	switch lines.Err() {
	case nil:
	case bufio.ErrTooLong:
		s.refuse(c, "the line is too long; X has up to 65536 bytes")
		s.leave(c)
		conn.(*net.TCPConn).CloseWrite()
		conn.SetReadDeadline(time.Now().Add(linger)) // it shall get to read that
		io.Copy(io.Discard, conn)
	default:
		s.mu.Lock()
		s.counts.Lost++
		s.mu.Unlock()
	}
}

func main() {
	port := flag.Int("port", 8000, "to listen on, 0 for any")
	plain := flag.Bool("no-reforward", false, "who owes an ok and goes leaves the sender to its time-out")
	flag.Parse()
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", *port))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("listening on", listener.Addr())
	s := &server{
		reforward: !*plain,
		random:    rand.New(rand.NewSource(time.Now().UnixNano())),
		messages:  make(map[string][]*message),
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			log.Print(err) // no descriptor is free
			time.Sleep(10 * time.Millisecond)
			continue
		}
		go s.serve(conn)
	}
}
