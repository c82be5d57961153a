/** What the page writes of numbers and of text out of images: as the command does. */

export {
  DECEIVING,
  about,
  bytes,
  displayText,
  duration,
  exactBytes,
  integer,
  percent,
  plural,
  rate,
  visible,
} from '../lib/text.js';
