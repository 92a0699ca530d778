"""The page of predictions shows every picture, what was said of it, and what could not be read."""

import re

from jaxdefect.explain import predictions_page


def page(rows, **more):
  drawn = {row['image']: f'overlays/{row["image"]}.png' for row in rows}
  return predictions_page.html(rows, drawn, title='run on <new>', **more)


def test_verdict_first_then_its_numbers():
  row = {'image': 'a b/1.png', 'verdict': 'flagged', 'score': 1.23456789, 'p_value': 0.02}
  text = page([row, {**row, 'image': '2.png', 'verdict': 'ok'}], legend='legend.png')
  assert '<b>flagged</b><div>score 1.235, p value 0.02</div>' in text
  assert '<h1>run on &lt;new&gt;</h1>' in text
  assert re.findall('src="([^"]+)"', text) == [
    *('legend.png', 'overlays/a%20b/1.png.png', 'overlays/2.png.png')
  ]
  assert text.count('loading="lazy"') == 3


def test_classes_and_boxes_are_counted():
  text = page([{'image': name, 'class': 'bent', 'scores': {'bent': 1.0}} for name in 'ab'])
  assert '<td>bent</td><td>2</td>' in text
  boxes = [{'class': name, 'score': 0.9, 'box': [0, 0, 1, 1]} for name in ('hole', 'dent', 'hole')]
  text = page([{'image': 'a', 'detections': boxes}, {'image': 'b', 'detections': []}])
  assert '<b>2 hole, 1 dent</b>' in text
  assert '<b>no box</b>' in text


def test_the_least_certain_is_shown_first():
  rows = [
    {'image': name, 'class': 'bent', 'probability': p, 'probabilities': {'bent': p, 'cut': q}}
    for name, p, q in (('a', 1.0, 0.01), ('b', 0.65, 0.009))
  ]
  text = page(rows)
  assert text.index('overlays/b.png') < text.index('overlays/a.png')
  assert 'probability &gt; 99.9 %, then cut 1.0 %' in text
  assert '<div>probability 65.0 %</div>' in text  # what came second is not worth saying
  assert '2 pictures, the least certain first' in text


def test_answers_that_the_test_found_wrong_are_marked():
  known = predictions_page.tested([[4, 0, 2], [1, 3, 1], [0, 0, 0]], ['ash', 'bent', 'cut'])
  assert known['ash'].said == 5
  assert known['ash'].wrong == {'bent': 1}
  assert str(known['ash']) == '4 of 5; 1 was bent'
  assert str(known['bent']) == '3 of 3'
  assert str(known['cut']) == '0 of 3; 2 were ash; 1 was bent'
  assert str(predictions_page.tested([[1, 0], [1, 0]], 'ab')['b']) == 'not said in the test'
  rows = [{'image': k, 'class': k, 'probability': 0.9} for k in ('ash', 'bent')]
  text = page(rows, known=known)
  assert '<th scope="col">right of those called so in the test</th>' in text
  assert '<td>bent</td><td>1</td><td>3 of 3</td>' in text
  assert text.count('<div>in the test 4 of 5 right</div>') == 1
  assert '3 of 3 right' not in text
  assert '<td>ash</td><td>1</td><td>4 of 5; 1 was bent</td>' in text
  assert 'in the test' not in page(rows)
  assert 'in the test' not in page([{'image': 'a', 'verdict': 'ok', 'class': 'ash'}], known=known)


def test_the_picture_as_it_is_stands_beside_its_overlay():
  text = page([{'image': 'a b', 'class': 'bent'}], plain={'a b': 'pictures/a b.jpg'})
  assert re.findall('href="([^"]+)"', text) == ['pictures/a%20b.jpg', 'overlays/a%20b.png']
  assert re.findall('src="([^"]+)"', text) == ['pictures/a%20b.jpg', 'overlays/a%20b.png']


def test_what_cannot_be_read_is_said_first():
  text = page([], unreadable={'c.png': 'The image c.png cannot be read: it has no bytes.'})
  assert 'could not be read: 1' in text
  assert 'c.png cannot be read' in text
